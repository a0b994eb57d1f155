# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import BundleUnderTest, failing
from dicom import write_dicom

from endofm_monai.data import ClipReadError
from endofm_monai.networks.nets import EndoFM

BUNDLE = BundleUnderTest(
    "endofm_pretraining",
    network={
        "network_def::embed_dim": 16,
        "network_def::depth": 2,
        "network_def::num_heads": 2,
        "num_workers": 0,
        "frame_size": 32,
    },
    training={
        "num_prototypes": 16,
        "epochs": 2,
        "warmup_epochs": 1,
        "batch_size": 2,
        "views::global_size": 32,
        "views::local_size": 16,
        "views::local_frames": [2, 4],
    },
)


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Output folder of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    BUNDLE.train(dataset_dir, output, "knn_probe", datalist=dataset_dir / "datalist.json")
    return output


def test_reference_overlay_trains_as_published(dataset_dir, tmp_path):
    made = BUNDLE.train(dataset_dir, tmp_path, "reference", datalist=dataset_dir / "datalist.json", epochs=1)
    network, optimizer = (made.parser.get_parsed_content(key) for key in ("model", "optimizer"))
    assert any(parameter is network.student.backbone.pos_embed for parameter in optimizer.param_groups[0]["params"])
    assert network.teacher.training
    assert not made.parser.get_parsed_content("train::augment").transform.has_blur


@pytest.mark.parametrize("global_frames", [[2], [2, 4, 4]])
def test_the_teacher_sees_all_global_views_and_no_other(dataset_dir, tmp_path, global_frames):
    settings = {"epochs": 1, "views::global_frames": global_frames}
    made = BUNDLE.train(dataset_dir, tmp_path, datalist=dataset_dir / "datalist.json", **settings)
    loss, count = made.parser.get_parsed_content("loss"), len(global_frames)
    assert len(made.parser.get_parsed_content("model").teacher_tokens) == count
    assert loss.pairs.isnan().tolist() == torch.eye(count, count + 2, dtype=torch.bool).tolist()


def test_training_and_inference_agree():
    train, inference = (json.loads(Path(path).read_text()) for path in BUNDLE.config("train", "inference"))
    assert inference["preprocessing"] == train["validate"]["preprocessing"]
    assert inference["network_def"].items() <= train["network_def"].items()
    for key in ("preset", "num_frames", "frame_size"):
        assert inference[key] == train[key]


def test_training_writes_checkpoints_pictures_and_tensorboard(trained):
    state = torch.load(trained / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 4
    backbone = EndoFM(embed_dim=16, depth=2, num_heads=2)
    backbone.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    written = {path.relative_to(trained / "eval").parts[0] for path in (trained / "eval").rglob("*") if path.is_file()}
    assert {"views", "attention", "knn"} <= written
    assert any(name.startswith("events.out.tfevents") for name in written)
    assert (trained / "eval" / "views" / "0000001.png").stat().st_size > 5000


def test_recipe_for_few_clips_ends_with_a_report(dataset_dir, tmp_path):
    settings = {"datalist": dataset_dir / "datalist.json", "report_section": "validation", "queue_length": 6}
    settings["num_frames"] = 3  # of which the report's windows, halves of a clip, leave one out
    made = BUNDLE.train(dataset_dir, tmp_path, "small", "learning", **settings)
    network, loss = (made.parser.get_parsed_content(key) for key in ("model", "loss"))
    assert network.student.backbone.token_drop == 0.5
    assert int(loss.queue_rows) == 6
    record = json.loads((tmp_path / "eval" / "learning.json").read_text())
    assert {"retrieval", "knn_accuracy"} <= record["after"].keys()
    assert len(record["epochs"]) == 2
    page = (tmp_path / "eval" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # curves, views, attention; two clips make no map


def test_names_of_classes_are_no_files(dataset_dir, tmp_path):
    for item in (content := json.loads((dataset_dir / "datalist.json").read_text()))["training"]:
        item["label"] = "polyp"
    (tmp_path / "list.json").write_text(json.dumps(content))
    made = BUNDLE.train(dataset_dir, tmp_path / "out", datalist=tmp_path / "list.json", epochs=1)
    assert made.parser.get_parsed_content("train::dataset").data[0]["label"] == "polyp"


def test_inference_writes_one_embedding_a_clip(trained, dataset_dir, tmp_path):
    BUNDLE.infer(dataset_dir, trained / "models" / "model.pt", tmp_path)
    with np.load(tmp_path / "embeddings.npz") as saved:
        assert saved["embeddings"].shape == (6, 16)
        assert [Path(path).name for path in saved["paths"]] == [f"{number}.mp4" for number in range(6)]
    rows = (tmp_path / "embeddings.csv").read_text().splitlines()
    assert len(rows) == 7
    assert (tmp_path / "embeddings.png").exists()


def test_evaluation_probes_the_training_on_the_validation_clips(trained, dataset_dir, tmp_path):
    checkpoint = trained / "models" / "checkpoint.pt"
    BUNDLE.evaluate(dataset_dir, checkpoint, tmp_path, datalist=dataset_dir / "datalist.json")
    probe = json.loads((tmp_path / "probe.json").read_text())
    assert {"knn", "linear", "training_clips", "evaluated_clips"} <= set(probe)
    assert 0 <= probe["linear"]["accuracy"] <= 1


def test_weights_of_another_architecture_are_refused_by_name(trained, dataset_dir, tmp_path):
    with failing("model.pt", "does not fit EndoFM", "depth 2", "depth 3"):
        BUNDLE.infer(dataset_dir, trained / "models" / "model.pt", tmp_path, **{"network_def::depth": 3})


def test_truncated_video_is_skipped_or_stops_by_policy(dataset_dir, tmp_path, caplog):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        data = (dataset_dir / f"{number}.mp4").read_bytes()
        (videos / f"{number}.mp4").write_bytes(data if number else data[: len(data) // 3])
    BUNDLE.train(videos, tmp_path / "skip", max_broken_share=0.3, epochs=1)
    assert "1 of 4 clips were broken and skipped" in caplog.text
    with failing("0.mp4", kind=ClipReadError):
        BUNDLE.train(videos, tmp_path / "raise", on_error="raise", epochs=1)


def test_damaged_dicom_is_skipped_by_name(tmp_path, caplog):
    folder = tmp_path / "recordings"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, 12 * 32 * 48, np.uint8).tobytes()
    size = {"Rows": 32, "Columns": 48, "NumberOfFrames": 12}
    for number in range(4):
        write_dicom(folder / f"{number}.dcm", pixels, **size)
    write_dicom(folder / "columns.dcm", pixels, **{**size, "Columns": None})
    write_dicom(folder / "frames.dcm", pixels, **{**size, "NumberOfFrames": 10**6})
    write_dicom(folder / "cells.dcm", pixels, **{**size, "BitsAllocated": 7})
    whole = (folder / "0.dcm").read_bytes()
    (folder / "header.dcm").write_bytes(whole[:200])
    (folder / "bytes.dcm").write_bytes(whole[:132] + bytes(range(256)) * 40)
    made = BUNDLE.train(folder, tmp_path / "skip", max_broken_share=0.9, epochs=1)
    named = {line.split("recordings/")[1].split(":")[0] for line in caplog.messages if "Skipping a broken" in line}
    assert {"columns.dcm", "cells.dcm", "header.dcm", "bytes.dcm"} <= named <= {path.name for path in folder.iterdir()}
    assert not named & {f"{number}.dcm" for number in range(4)}
    assert made.parser.get_parsed_content("train::trainer").state.iteration == 9 // 2
    with failing("of 9 clips are broken", kind=ClipReadError):
        BUNDLE.train(folder, tmp_path / "stop", epochs=1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dataset_dir": "no/such/folder"}, "no/such/folder: `dataset_dir` is not an existing folder"),
        ({"datalist": "no/such/list.json"}, "no/such/list.json"),
        ({"backbone_weights": "no/such/weights.pt"}, "no/such/weights.pt"),
        ({"batch_size": 50}, "there are fewer clips than `batch_size`"),
        ({"views::global_scale": [0.4, 2.0]}, "global_scale"),
    ],
)
def test_wrong_settings_are_named_before_the_training(dataset_dir, tmp_path, overrides, message):
    with failing(message):
        BUNDLE.train(overrides.pop("dataset_dir", dataset_dir), tmp_path, **overrides)
    assert list(tmp_path.iterdir()) == []
