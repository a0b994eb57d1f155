# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from bundles import BundleUnderTest, failing, write_noise
from PIL import Image

from endofm_monai.data import ClipDataset, open_clip
from endofm_monai.networks.nets import EndoFM, EndoFMClassifier

BUNDLE = BundleUnderTest(
    "endofm_polyp_classification",
    network={
        "network_def::embed_dim": 16,
        "network_def::depth": 2,
        "network_def::num_heads": 2,
        "num_workers": 0,
        "frame_size": 32,
        "num_frames": 4,
        "sampling_rate": 6,  # 8 frames at 10 frames per second
    },
    training={"epochs": 2, "batch_size": 2},
)


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> Path:
    """Videos of noise, class 1 being bright."""
    folder = tmp_path_factory.mktemp("videos")
    datalist: dict[str, list] = {"training": [], "validation": [], "test": []}
    for section, count in (("training", 4), ("validation", 2), ("test", 4)):
        for number in range(count):
            name = f"{section}_{number}.mp4"
            write_noise(folder / name, 100 * (number % 2) + number)
            datalist[section].append({"image": name, "label": number % 2})
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Weights of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    BUNDLE.train(dataset_dir, output)
    return output / "models" / "model.pt"


def evaluate(dataset_dir: Path, weights: Path, output: Path, *overlays: str, **overrides: Any) -> dict[str, Any]:
    BUNDLE.evaluate(dataset_dir, weights, output, *overlays, **{"bootstrap_resamples": 20, **overrides})
    return json.loads((output / "metrics.json").read_text())


def result(output: Path, video: str) -> dict[str, Any]:
    return json.loads((output / "videos" / f"{video}.json").read_text())


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", ["train", "linear_probe"]),
        ("infer", ["inference", "embeddings"]),
    ],
)
def test_overlays_have_all_properties(kind, names, dataset_dir, tmp_path):
    settings = BUNDLE.training if kind == "train" else BUNDLE.network
    made = BUNDLE.workflow(kind, *names, dataset_dir=dataset_dir, output_dir=tmp_path, **settings)
    assert made.check_properties() == []


def test_training_and_inference_agree():
    train, inference, tiny, tiny_inference = (
        json.loads(Path(path).read_text()) for path in BUNDLE.config("train", "inference", "tiny", "tiny_inference")
    )
    assert inference["network_def"].items() <= train["network_def"].items()
    shared = (
        "preset",
        "head",
        "class_names",
        "multi_label",
        "num_frames",
        "sampling_rate",
        "frame_size",
        "mean",
        "std",
    )
    for key in (*shared, "plan", "normalize"):
        assert inference[key] == train[key]
    crop = train["validate"]["preprocessing"]["transforms"][1]
    assert inference["crop"].items() - {("_target_", "ScaleCropClip")} <= crop.items()
    assert tiny_inference.items() <= tiny.items()


def test_training_writes_checkpoint_best_model_and_tensorboard(trained):
    state = torch.load(trained.with_name("checkpoint.pt"), weights_only=True)
    assert state["iteration"] == 4
    network = EndoFMClassifier.from_preset("tiny", embed_dim=16, depth=2, num_heads=2)
    network.load_state_dict(torch.load(trained, weights_only=True))
    assert list((trained.parents[1] / "eval" / "validation").glob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"mode": "last_blocks", "head": "attentive", "class_weights": "balanced", "label_smoothing": 0.1},
        {"backbone_weights": "TRAINED", "layer_decay": 1.0, "selection_score": "macro_f1"},
        {"weights": "TRAINED", "num_windows": 2, "num_crops": 3},
    ],
)
def test_ways_to_train(dataset_dir, trained, tmp_path, overrides):
    overrides = {key: trained if value == "TRAINED" else value for key, value in overrides.items()}
    BUNDLE.train(dataset_dir, tmp_path, epochs=1, **overrides)
    assert (tmp_path / "models" / "model.pt").exists()


def test_linear_probe_trains_only_the_head_on_cached_features(dataset_dir, trained, tmp_path, monkeypatch):
    calls = []
    original = EndoFMClassifier.features
    monkeypatch.setattr(EndoFMClassifier, "features", lambda self, x: calls.append(len(x)) or original(self, x))
    BUNDLE.train(dataset_dir, tmp_path, "linear_probe", backbone_weights=trained, epochs=5)
    assert sum(calls) == 6  # 4 training and 2 validation videos, each once
    before, after = (torch.load(path, weights_only=True) for path in (trained, tmp_path / "models" / "model.pt"))
    assert all(before[name].equal(after[name]) for name in before if name.startswith("backbone."))
    assert not before["head.weight"].equal(after["head.weight"])
    report = evaluate(dataset_dir, tmp_path / "models" / "model.pt", tmp_path / "evaluated")
    assert report["video"]["number"] == 4


def test_linear_probe_sees_features_of_the_weights_it_starts_from(dataset_dir, trained, tmp_path):
    made = BUNDLE.train(dataset_dir, tmp_path, "linear_probe", weights=trained, epochs=1)
    trainer = made.parser.get_parsed_content("train::trainer")
    network, cached = trainer.network, trainer.data_loader.dataset
    item = ClipDataset(cached.data, cached.transform)[0]
    whole = made.parser.get_parsed_content("model").eval()
    assert network is whole.head
    with torch.no_grad():
        torch.testing.assert_close(cached[0]["image"], whole.features(item["image"].as_tensor()[None])[0])


@pytest.mark.parametrize(
    ("overlay", "message"), [("adapter", "`mode`"), ("st_adapter", "`mode`"), ("multi_gpu_train", "one process")]
)
def test_a_probe_of_what_learns_or_in_many_processes_is_refused(dataset_dir, tmp_path, overlay, message):
    try:
        with failing(message, kind=ValueError):
            BUNDLE.train(dataset_dir, tmp_path, "linear_probe", overlay, epochs=1)
    finally:
        idist.finalize()


def test_reference_overlay_says_that_it_selects_on_the_test(dataset_dir, tmp_path):
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    published = tmp_path / "datalist_published.json"
    published.write_text(json.dumps({"training": datalist["training"], "validation": datalist["test"]}))
    BUNDLE.train(dataset_dir, tmp_path, "reference", datalist=published, bootstrap_resamples=20)
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert "selected on the very test videos" in report["protocol"]
    assert report["video"]["number"] == 4


def test_several_labels_and_many_classes(dataset_dir, tmp_path):
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    for items in datalist.values():
        for number, item in enumerate(items):
            item["label"] = [number % 2, 1 - number % 2, number // 2 % 2]
    (tmp_path / "labels.json").write_text(json.dumps(datalist))
    several = {"class_names": ["a", "b", "c"], "multi_label": True}
    BUNDLE.train(dataset_dir, tmp_path, datalist=tmp_path / "labels.json", **several)
    model = tmp_path / "models" / "model.pt"
    report = evaluate(dataset_dir, model, tmp_path, datalist=tmp_path / "labels.json", **several)
    assert 0 <= report["video"]["scores"]["macro_f1"]["value"] <= 1
    BUNDLE.infer(dataset_dir, model, tmp_path / "results", **several)
    written = result(tmp_path / "results", "test_0")
    assert written["prediction"] == [name for name, value in written["probabilities"].items() if value > 0.5]


def test_head_of_another_size_is_named_and_can_be_new(trained, dataset_dir, tmp_path):
    three = ["a", "b", "c"]
    with failing("head.weight (2, 16) instead of (3, 16)", "`backbone_weights`"):
        BUNDLE.infer(dataset_dir, trained, tmp_path, class_names=three)
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    datalist["training"][0]["label"] = 2
    (tmp_path / "three.json").write_text(json.dumps(datalist))
    settings = {"class_names": three, "datalist": tmp_path / "three.json"}
    BUNDLE.train(dataset_dir, tmp_path, backbone_weights=trained, **settings)
    assert torch.load(tmp_path / "models" / "model.pt", weights_only=True)["head.weight"].shape == (3, 16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"datalist": "no/such/list.json"}, "no/such/list.json"),
        ({"class_names": ["only"]}, "`label` must be from 0 to 0 or one of ['only'], found 1"),
        ({"class_names": ["a", "b", "c"]}, "no item of `training` is of the class c"),
        ({"head": "cubic"}, '`head` must be "linear" or "attentive"'),
        ({"class_weights": [1, 2, 3]}, "`class_weights`"),
        ({"selection_score": "f3"}, "no score 'f3'"),
        ({"selection_score": "calibration_error"}, "no score 'calibration_error'"),  # the smallest would be the best
        ({"backbone_weights": "no/such/weights.pt"}, "no/such/weights.pt"),
    ],
)
def test_wrong_settings_are_named(dataset_dir, tmp_path, overrides, message):
    with failing(message):
        BUNDLE.train(dataset_dir, tmp_path, **{"epochs": 1, **overrides})


def test_evaluation_reads_the_test_section(trained, dataset_dir, tmp_path):
    report = evaluate(dataset_dir, trained, tmp_path)
    assert report["video"]["number"] == 4
    assert report["clip"]["number"] == 16
    assert {"f1", "roc_auc", "calibration_error"} <= set(report["video"]["scores"])
    assert "scores of the test section" in report["protocol"]
    with (tmp_path / "predictions.csv").open() as file:
        assert [row["video"] for row in csv.DictReader(file)] == [f"test_{number}" for number in range(4)]
    report = evaluate(dataset_dir, trained, tmp_path, val_section="validation")
    assert "scores of the validation section" in report["protocol"]


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
    BUNDLE.infer(dataset_dir, tmp_path / "polypdiag.pth", tmp_path, datalist=dataset_dir / "datalist.json")
    made = BUNDLE.workflow("infer", "inference", dataset_dir=dataset_dir, output_dir=tmp_path / "new", **BUNDLE.network)
    predictor = made.parser.get_parsed_content("predictor")
    with open_clip(dataset_dir / "test_1.mp4") as reader:
        read = [reader.read(predictor.plan.indices(reader.probe(), start)) for start in (0, 6, 12)]
    clips = torch.stack([predictor.normalize(predictor.crop(clip)) for clip in read])
    with torch.no_grad():
        expected = (backbone(clips) @ weight.T + bias).softmax(dim=1)
    written = result(tmp_path, "test_1")
    assert [w["probabilities"]["abnormal"] for w in written["windows"]] == pytest.approx(
        expected[:, 1].tolist(), abs=1e-5
    )
    assert written["probabilities"]["abnormal"] == pytest.approx(expected[:, 1].mean().item(), abs=1e-5)


def test_inference_writes_each_video_and_does_it_once(trained, dataset_dir, tmp_path):
    weights, videos = trained, tmp_path / "in"
    videos.mkdir()
    write_noise(videos / "long.mp4", 100, frames=90)
    write_noise(videos / "short.mp4", 30, frames=3)
    data = (dataset_dir / "test_0.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(data[: len(data) // 4])
    BUNDLE.infer(videos, weights, tmp_path, save_pictures=True)
    long = result(tmp_path, "long")
    assert long["status"] == "ok"
    assert long["windows_used"] == len(long["windows"]) == 12  # 90 frames in windows of 8
    assert (long["windows"][0]["begin_seconds"], long["windows"][-1]["end_seconds"]) == (0, 9.0)
    mean = np.mean([window["probabilities"]["abnormal"] for window in long["windows"]])
    assert long["probabilities"]["abnormal"] == pytest.approx(mean, abs=1e-5)
    assert long["network_seconds"] > 0
    assert long["reading_seconds"] > 0
    assert result(tmp_path, "short")["windows_used"] == 1
    cut = result(tmp_path, "cut")
    assert cut["status"] == "unreadable"
    assert "cut.mp4" in cut["problems"][0]
    assert cut["probabilities"] is None
    assert (tmp_path / "videos" / "long.png").stat().st_size > 10_000
    with (tmp_path / "predictions.csv").open() as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"long", "short", "cut"}
    assert float(rows["long"]["abnormal"]) == long["probabilities"]["abnormal"]

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").glob("*.json")}
    shutil.copy(dataset_dir / "test_0.mp4", videos / "cut.mp4")
    BUNDLE.infer(videos, weights, tmp_path)
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"cut.json"}
    assert result(tmp_path, "cut")["status"] == "ok"
    BUNDLE.infer(videos, weights, tmp_path)  # nothing is left to do

    for _ in range(2):  # also where nothing is left to do
        with failing("holds results with other settings (sampling_rate)"):
            BUNDLE.infer(videos, weights, tmp_path, sampling_rate=3)
        (videos / "new.mp4").write_bytes(data)
    with failing("nowhere.pt"):
        BUNDLE.infer(videos, tmp_path / "nowhere.pt", tmp_path)


def test_single_images(trained, tmp_path):
    for number, brightness in enumerate((30, 200)):
        for section in ("training", "validation", "test"):
            folder = tmp_path / "images" / section / ("normal", "abnormal")[number]
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.random.default_rng(index).integers(0, 50, (40, 44 + index, 3)) + brightness
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    single = {"num_frames": 1, "datalist": None}
    BUNDLE.train(tmp_path / "images", tmp_path, **single)
    model = tmp_path / "models" / "model.pt"
    assert evaluate(tmp_path / "images", model, tmp_path / "report", num_windows=1, **single)["video"]["number"] == 4
    BUNDLE.infer(tmp_path / "images" / "test", model, tmp_path / "results", single_images=True, **single)
    assert result(tmp_path / "results", "abnormal/1")["windows_used"] == 1


def test_embeddings_of_the_backbone(trained, dataset_dir, tmp_path):
    BUNDLE.infer(dataset_dir, trained, tmp_path, "embeddings")
    with np.load(tmp_path / "embeddings.npz") as saved:
        assert saved["embeddings"].shape == (10, 16)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"no video")
    with failing("a.mp4: is not a readable video"):
        BUNDLE.infer(tmp_path / "broken", trained, tmp_path, "embeddings", on_error="raise")


def test_unreadable_video_of_the_test_is_reported(trained, dataset_dir, tmp_path):
    shutil.copytree(dataset_dir, tmp_path / "data")
    (tmp_path / "data" / "test_3.mp4").write_bytes(b"no video")
    report = evaluate(tmp_path / "data", trained, tmp_path)
    assert report["video"]["number"] == 3
    (message,) = report["unreadable"]
    assert "test_3.mp4" in message


def test_a_probe_is_resumed_with_the_backbone_that_it_began_with(dataset_dir, trained, tmp_path):
    BUNDLE.train(dataset_dir, tmp_path, "linear_probe", backbone_weights=trained, epochs=1)
    with failing("needs the backbone with the SHA-256", kind=ValueError):
        BUNDLE.train(dataset_dir, tmp_path, "linear_probe", epochs=2, resume=True)
    made = BUNDLE.train(dataset_dir, tmp_path, "linear_probe", backbone_weights=trained, epochs=2, resume=True)
    assert made.parser.get_parsed_content("train::trainer").state.epoch == 2


def test_a_checkpoint_of_a_former_version_goes_on(dataset_dir, trained, tmp_path):
    BUNDLE.train(dataset_dir, tmp_path, "linear_probe", backbone_weights=trained, epochs=1)
    path = tmp_path / "models" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    assert state.pop("backbone")  # of which nothing was noted, as the optimizer was not the fused one
    state["loss"] = {"class_weights": torch.ones(2)}
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(state, path)
    made = BUNDLE.train(dataset_dir, tmp_path, "linear_probe", backbone_weights=trained, epochs=2, resume=True)
    assert made.parser.get_parsed_content("train::trainer").state.epoch == 2
    assert {group["fused"] for group in made.parser.get_parsed_content("optimizer").param_groups} == {True}


def test_a_resumed_training_has_the_class_weights_that_it_is_given(dataset_dir, tmp_path):
    BUNDLE.train(dataset_dir, tmp_path, epochs=1, class_weights=[1, 2])
    made = BUNDLE.train(dataset_dir, tmp_path, epochs=2, class_weights=[1, 5], resume=True)
    assert made.parser.get_parsed_content("loss_function").class_weights.tolist() == [1, 5]


def test_a_resumed_training_has_the_weight_decay_that_it_is_given(dataset_dir, tmp_path):
    BUNDLE.train(dataset_dir, tmp_path, epochs=1, weight_decay=0.05, layer_decay=0.5)
    made = BUNDLE.train(dataset_dir, tmp_path, epochs=2, weight_decay=0.25, layer_decay=1.0, resume=True)
    groups = made.parser.get_parsed_content("optimizer").param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.25}
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_the_best_of_another_validation_is_not_compared(dataset_dir, tmp_path):
    BUNDLE.train(dataset_dir, tmp_path, epochs=1)
    with failing("`validation` was '2 clips, SHA-256 ", "and is '4 clips, SHA-256 ", kind=ValueError):
        BUNDLE.train(dataset_dir, tmp_path, epochs=2, val_section="test", resume=True)
    BUNDLE.train(dataset_dir.rename(tmp_path / "moved"), tmp_path, epochs=2, resume=True)
    (tmp_path / "moved").rename(dataset_dir)
