# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch
from bundles import root_cause
from classification_trial import BUNDLE, SMALL, result, run_evaluation, run_inference, run_training, write_video
from PIL import Image

from endofm_monai.data import open_clip
from endofm_monai.networks.nets import EndoFM


def test_evaluation_reads_the_test_section(trained, dataset_dir, tmp_path):
    report = run_evaluation(dataset_dir, trained / "models" / "model.pt", tmp_path)
    assert report["video"]["number"] == 4
    assert report["clip"]["number"] == 16
    assert {"f1", "roc_auc", "calibration_error"} <= set(report["video"]["scores"])
    assert "test section" in report["protocol"]
    with (tmp_path / "predictions.csv").open() as file:
        assert [row["video"] for row in csv.DictReader(file)] == [f"test_{number}.mp4" for number in range(4)]


def test_published_file_gives_the_same_probabilities_as_plain_code(dataset_dir, tmp_path, arr, fill):
    backbone = fill(EndoFM(embed_dim=16, depth=2, num_heads=2), 0.1)
    weight, bias = arr("linear.weight", (2, 16), 0.3), arr("linear.bias", (2,))
    content = {
        "backbone_state_dict": {f"module.{key}": value for key, value in backbone.state_dict().items()},
        "state_dict": {"module.linear.weight": weight, "module.linear.bias": bias},
        "epoch": 20,
        "best_f1": 0.9,
    }
    torch.save(content, tmp_path / "polypdiag.pth")
    run_inference(dataset_dir, tmp_path / "polypdiag.pth", tmp_path, datalist=str(dataset_dir / "datalist.json"))
    made = BUNDLE.workflow(
        "infer", "inference", dataset_dir=str(dataset_dir), output_dir=str(tmp_path / "new"), **SMALL
    )
    predictor = made.parser.get_parsed_content("predictor")
    with open_clip(dataset_dir / "test_1.mp4") as reader:
        read = [reader.read(predictor.plan.indices(reader.probe(), start)) for start in (0, 6, 12)]
    clips = torch.stack([predictor.normalize(predictor.crop(clip)) for clip in read])
    with torch.no_grad():
        expected = (backbone(clips) @ weight.T + bias).softmax(dim=1)
    written = result(tmp_path, "test_1.mp4")
    assert [w["probabilities"]["abnormal"] for w in written["windows"]] == pytest.approx(
        expected[:, 1].tolist(), abs=1e-5
    )
    assert written["probabilities"]["abnormal"] == pytest.approx(expected[:, 1].mean().item(), abs=1e-5)


def test_inference_writes_each_video_and_does_it_once(trained, dataset_dir, tmp_path):
    weights, videos = trained / "models" / "model.pt", tmp_path / "in"
    videos.mkdir()
    write_video(videos / "long.mp4", 100, frames=90)
    write_video(videos / "short.mp4", 30, frames=3)
    data = (dataset_dir / "test_0.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(data[: len(data) // 4])
    run_inference(videos, weights, tmp_path, save_pictures=True)
    long = result(tmp_path, "long.mp4")
    assert long["status"] == "ok"
    assert long["windows_used"] == len(long["windows"]) == 12  # 90 frames in windows of 8
    assert (long["windows"][0]["begin_seconds"], long["windows"][-1]["end_seconds"]) == (0, 9.0)
    mean = np.mean([window["probabilities"]["abnormal"] for window in long["windows"]])
    assert long["probabilities"]["abnormal"] == pytest.approx(mean, abs=1e-5)
    assert long["network_seconds"] > 0
    assert long["reading_seconds"] > 0
    assert result(tmp_path, "short.mp4")["windows_used"] == 1
    cut = result(tmp_path, "cut.mp4")
    assert cut["status"] == "unreadable"
    assert "cut.mp4" in cut["problems"][0]
    assert cut["probabilities"] is None
    assert (tmp_path / "videos" / "long.png").stat().st_size > 10_000
    with (tmp_path / "predictions.csv").open() as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"long.mp4", "short.mp4", "cut.mp4"}
    assert float(rows["long.mp4"]["abnormal"]) == long["probabilities"]["abnormal"]

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").glob("*.json")}
    shutil.copy(dataset_dir / "test_0.mp4", videos / "cut.mp4")
    run_inference(videos, weights, tmp_path)
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"cut.json"}
    assert result(tmp_path, "cut.mp4")["status"] == "ok"
    run_inference(videos, weights, tmp_path)  # nothing is left to do

    (videos / "new.mp4").write_bytes(data)
    with pytest.raises(RuntimeError) as caught:
        run_inference(videos, weights, tmp_path, sampling_rate=3)
    assert "holds results with other settings (sampling_rate)" in str(root_cause(caught.value))


def test_single_images(trained, tmp_path):
    for number, brightness in enumerate((30, 200)):
        for section in ("training", "validation", "test"):
            folder = tmp_path / "images" / section / ("normal", "abnormal")[number]
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.random.default_rng(index).integers(0, 50, (40, 44 + index, 3)) + brightness
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    single = {"num_frames": 1, "datalist": None}
    run_training(tmp_path / "images", tmp_path, **single)
    model = tmp_path / "models" / "model.pt"
    assert (
        run_evaluation(tmp_path / "images", model, tmp_path / "report", num_windows=1, **single)["video"]["number"] == 4
    )
    run_inference(tmp_path / "images" / "test", model, tmp_path / "results", single_images=True, **single)
    assert result(tmp_path / "results", "abnormal/1.png")["windows_used"] == 1


def test_embeddings_of_the_backbone(trained, dataset_dir, tmp_path):
    run_inference(dataset_dir, trained / "models" / "model.pt", tmp_path, "embeddings")
    with np.load(tmp_path / "embeddings.npz") as saved:
        assert saved["embeddings"].shape == (10, 16)


def test_unreadable_video_of_the_test_is_reported(trained, dataset_dir, tmp_path):
    shutil.copytree(dataset_dir, tmp_path / "data")
    (tmp_path / "data" / "test_3.mp4").write_bytes(b"no video")
    report = run_evaluation(tmp_path / "data", trained / "models" / "model.pt", tmp_path)
    assert report["video"]["number"] == 3
    (message,) = report["unreadable"]
    assert "test_3.mp4" in message
