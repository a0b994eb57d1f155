# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import BundleUnderTest, failing
from PIL import Image

from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.weights import WeightsError

CLASSES = ["adenoma", "hyperplastic"]
BUNDLE = BundleUnderTest(
    "endofm_polyp_detection",
    network={
        "preset": "tiny",
        "network_def::embed_dim": 32,
        "network_def::depth": 2,
        "network_def::num_heads": 2,
        "class_names": CLASSES,
        "frame_size": [64, 96],
    },
    training={"epochs": 2, "batch_size": 2, "num_workers": 0, "key_frame_interval": 4, "test_supports": 2},
)


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> Path:
    """Videos of 8 frames with a moving bright square of one of two colors; frames have the same names in each."""
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    datalist: dict[str, list] = {"training": [], "validation": [], "test": []}
    for number in range(5):
        item: dict = {"image": [], "box": [], "box_label": []}
        (folder / str(number)).mkdir()
        for frame in range(8):
            pixels = random.integers(0, 60, (60, 80, 3)).astype(np.uint8)
            x, y, label = 10 + 4 * frame, 15 + 2 * number, 1 + number % 2
            if frame:
                pixels[y : y + 22, x : x + 24, label] = 220
            item["image"].append(f"{number}/{frame}.png")
            item["box"].append([[x, y, x + 24, y + 22]] if frame else [])
            item["box_label"].append([label] if frame else [])
            Image.fromarray(pixels).save(folder / item["image"][-1])
        datalist["training" if number < 2 else "validation" if number < 4 else "test"].append(item)
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Weights of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    BUNDLE.train(dataset_dir, output)
    return output / "models" / "model.pt"


def test_reference_overlay_has_all_properties(dataset_dir):
    made = BUNDLE.workflow("train", "train", "reference", dataset_dir=dataset_dir, **BUNDLE.network)
    assert made.check_properties() == []


def test_training_and_inference_agree():
    train, inference = (json.loads(Path(path).read_text()) for path in BUNDLE.config("train", "inference"))
    assert inference["network_def"].items() <= train["network_def"].items()
    for key in ("preset", "class_names", "frame_size", "window", "mode", "close_up"):
        assert inference[key] == train[key]
    assert train["test_supports"] == f"${inference['num_supports']} if @num_supports else 0"
    validated = train["validate"]["predictor"]
    for key in ("_target_", "fit", "normalize"):
        assert inference["predictor"][key] == validated[key]


def test_training_keeps_the_best_model_and_a_checkpoint(trained):
    state = torch.load(trained.with_name("checkpoint.pt"), weights_only=True)
    assert state["iteration"] == 4  # 2 videos with 2 key frames, batches of 2, 2 epochs
    assert state["best"]["metric"] is not None
    assert type(state["loss"]["usual_positives"]) is torch.Tensor  # no metadata of boxes with it
    network = EndoFMDetector.from_preset("tiny", embed_dim=32, depth=2, num_heads=2)
    network.load_state_dict(torch.load(trained, weights_only=True))
    assert list((trained.parents[1] / "eval").glob("events.out.tfevents*"))


def test_evaluation_writes_all_scores_with_intervals(trained, dataset_dir, tmp_path):
    BUNDLE.evaluate(dataset_dir, trained, tmp_path, val_section="validation", resamples=20)
    report = json.loads((tmp_path / "detection.json").read_text())
    assert (report["videos"], report["frames"], report["negative_frames"], report["boxes"]) == (2, 16, 2, 14)
    expected = {"ap50", "ap", "presence_f1", "center_f1", "box_f1", "box_adenoma_f1", "polyp_detection_rate"}
    assert expected <= set(report["scores"])
    assert set(report["intervals"]) == set(report["scores"])
    assert {path.name for path in (tmp_path / "videos" / "2" / "0-7").iterdir()} == {"detections.csv", "overlay.mp4"}


@pytest.mark.parametrize(("mode", "close_up"), [("offline", None), ("online", 0.6)])
def test_inference_writes_every_format_for_videos_and_single_images(trained, dataset_dir, tmp_path, mode, close_up):
    listed = {"test": [{"image": [f"4/{frame}.png" for frame in range(8)]}, {"image": "0/3.png"}]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    options = {"datalist": tmp_path / "list.json", "mode": mode, "close_up": close_up}
    BUNDLE.infer(dataset_dir, trained, tmp_path / "out", **options)
    for name in ("4/0-7", "0/3"):
        files = {path.name for path in (tmp_path / "out" / name).iterdir()}
        assert files == {"detections.json", "detections.csv", "annotations.xml", "overlay.mp4"}
    with open(tmp_path / "out" / "4" / "0-7" / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["x1"]) < float(row["x2"]) <= 80 for row in rows)
    assert all(0 <= float(row["y1"]) < float(row["y2"]) <= 60 for row in rows)


@pytest.fixture(scope="module")
def with_a_broken_video(dataset_dir, tmp_path_factory) -> Path:
    """The test list with a second video that breaks off in the middle."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(dataset_dir / "4", folder / "4")
    shutil.copytree(dataset_dir / "3", folder / "3")
    (folder / "3" / "5.png").write_bytes((folder / "3" / "5.png").read_bytes()[:200])
    listed = json.loads((dataset_dir / "datalist.json").read_text())
    (folder / "datalist.json").write_text(json.dumps({"test": [listed["validation"][1], listed["test"][0]]}))
    return folder


def test_evaluation_reports_and_skips_a_video_that_breaks_off(trained, with_a_broken_video, tmp_path, caplog):
    BUNDLE.evaluate(with_a_broken_video, trained, tmp_path, resamples=0)
    report = json.loads((tmp_path / "detection.json").read_text())
    assert (report["videos"], report["frames"], report["skipped"]) == (1, 8, ["3/0-7"])
    assert str(with_a_broken_video / "3" / "5.png") in caplog.text
    assert "1 of 2 clips were broken and skipped" in caplog.text
    with failing("5.png"):
        BUNDLE.evaluate(with_a_broken_video, trained, tmp_path, resamples=0, on_error="raise")


def test_inference_goes_on_after_a_video_that_breaks_off(trained, with_a_broken_video, tmp_path):
    options = {"datalist": with_a_broken_video / "datalist.json", "formats": ["csv"], "max_broken_share": 0.5}
    BUNDLE.infer(with_a_broken_video, trained, tmp_path, **options)
    statuses = {number: json.loads((tmp_path / number / "0-7.json").read_text())["status"] for number in "34"}
    assert statuses == {"3": "unreadable", "4": "ok"}
    assert [path.parts[-3] for path in tmp_path.rglob("detections.csv")] == ["4"]


def test_reference_overlay_trains_as_published(dataset_dir, tmp_path):
    folders = {"dataset_dir": dataset_dir, "ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "eval"}
    short = {"batch_size": 1, "epochs": 1, "key_frame_interval": 8, "val_interval": 5}
    made = BUNDLE.workflow("train", "train", "reference", **folders, **{**BUNDLE.training, **short})
    network = made.parser.get_parsed_content("model")
    assert network.frames == "joint"
    assert torch.equal(network.head.regression.bbox_reg.bias, torch.zeros(4))
    offsets = network.head.box_transformation.conv_offset.weight.clone()
    made.run()
    assert torch.equal(network.head.box_transformation.conv_offset.weight, offsets)
    optimizer = made.parser.get_parsed_content("optimizer")
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0025 / 3, 0.005 / 3], rel=1e-3)


def test_published_weights_of_another_task_are_refused_by_name(dataset_dir, tmp_path):
    torch.save({"model": {"backbone.body.cls_token": torch.zeros(1, 1, 32)}}, tmp_path / "kumc.pth")
    with failing("kumc.pth", kind=WeightsError):
        BUNDLE.infer(dataset_dir, tmp_path / "kumc.pth", tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"class_names": ["polyp"]}, "the label 2 is no class; expected 1 to 1"),
        ({"datalist": "no/such/list.json"}, "no/such/list.json"),
        ({"frames": "both"}, "`frames` must be"),
        ({"mode": "live"}, "`mode` must be"),
        ({"close_up": 150}, "above 0 and below 1, but got 150"),
    ],
)
def test_wrong_settings_are_named(dataset_dir, tmp_path, overrides, message):
    with failing(message):
        BUNDLE.train(dataset_dir, tmp_path, **{"epochs": 1, **overrides})
