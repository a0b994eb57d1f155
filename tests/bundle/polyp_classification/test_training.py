# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bundles import root_cause
from classification_trial import BUNDLE, SMALL, SMALL_TRAINING, result, run_evaluation, run_inference, run_training

from endofm_monai.networks.nets import EndoFMClassifier


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", ["train", "linear_probe"]),
        ("infer", ["inference", "embeddings"]),
    ],
)
def test_overlays_have_all_properties(kind, names, dataset_dir, tmp_path):
    overrides = SMALL_TRAINING if kind == "train" else {**SMALL, "output_dir": str(tmp_path)}
    made = BUNDLE.workflow(kind, *names, dataset_dir=str(dataset_dir), **overrides)
    assert made.check_properties() == []


def test_training_and_inference_agree():
    train, inference, tiny, tiny_inference = (
        json.loads(Path(path).read_text()) for path in BUNDLE.config("train", "inference", "tiny", "tiny_inference")
    )
    for key in ("preprocessing", "postprocessing"):
        assert inference[key] == train["validate"][key]
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
    for key in shared:
        assert inference[key] == train[key]
    assert tiny_inference.items() <= tiny.items()


def test_training_writes_checkpoint_best_model_and_tensorboard(trained):
    state = torch.load(trained / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 4
    network = EndoFMClassifier.from_preset("tiny", embed_dim=16, depth=2, num_heads=2)
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    assert list((trained / "eval" / "validation").glob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"mode": "last_blocks", "head": "attentive", "class_weights": "balanced", "label_smoothing": 0.1},
        {"backbone_weights": "TRAINED", "layer_decay": 1.0, "selection_score": "macro_f1"},
        {"weights": "TRAINED", "num_windows": 2, "num_crops": 3},
    ],
)
def test_ways_to_train(dataset_dir, trained, tmp_path, overrides):
    model = str(trained / "models" / "model.pt")
    overrides = {key: model if value == "TRAINED" else value for key, value in overrides.items()}
    run_training(dataset_dir, tmp_path, epochs=1, **overrides)
    assert (tmp_path / "models" / "model.pt").exists()


def test_linear_probe_trains_only_the_head_on_cached_features(dataset_dir, trained, tmp_path, monkeypatch):
    calls = []
    original = EndoFMClassifier.features
    monkeypatch.setattr(EndoFMClassifier, "features", lambda self, x: calls.append(len(x)) or original(self, x))
    backbone = trained / "models" / "model.pt"
    run_training(dataset_dir, tmp_path, "linear_probe", backbone_weights=str(backbone), epochs=5)
    assert sum(calls) == 6  # 4 training and 2 validation videos, each once
    before, after = (torch.load(path, weights_only=True) for path in (backbone, tmp_path / "models" / "model.pt"))
    assert all(before[name].equal(after[name]) for name in before if name.startswith("backbone."))
    assert not before["head.weight"].equal(after["head.weight"])
    report = run_evaluation(dataset_dir, tmp_path / "models" / "model.pt", tmp_path / "evaluated")
    assert report["video"]["number"] == 4


def test_reference_overlay_says_that_it_selects_on_the_test(dataset_dir, tmp_path):
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    published = tmp_path / "datalist_published.json"
    published.write_text(json.dumps({"training": datalist["training"], "validation": datalist["test"]}))
    run_training(dataset_dir, tmp_path, "reference", datalist=str(published), bootstrap_resamples=20)
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
    run_training(dataset_dir, tmp_path, datalist=str(tmp_path / "labels.json"), **several)
    model = tmp_path / "models" / "model.pt"
    report = run_evaluation(dataset_dir, model, tmp_path, datalist=str(tmp_path / "labels.json"), **several)
    assert 0 <= report["video"]["scores"]["macro_f1"]["value"] <= 1
    run_inference(dataset_dir, model, tmp_path / "results", **several)
    written = result(tmp_path / "results", "test_0.mp4")
    assert written["prediction"] == [name for name, value in written["probabilities"].items() if value > 0.5]


def test_head_of_another_size_is_named_and_can_be_new(trained, dataset_dir, tmp_path):
    model, three = trained / "models" / "model.pt", ["a", "b", "c"]
    with pytest.raises(RuntimeError) as caught:
        run_inference(dataset_dir, model, tmp_path, class_names=three)
    message = str(root_cause(caught.value))
    assert "head.weight (2, 16) instead of (3, 16)" in message
    assert "`backbone_weights`" in message
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    datalist["training"][0]["label"] = 2
    (tmp_path / "three.json").write_text(json.dumps(datalist))
    settings = {"class_names": three, "datalist": str(tmp_path / "three.json")}
    run_training(dataset_dir, tmp_path, backbone_weights=str(model), **settings)
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
        ({"backbone_weights": "no/such/weights.pt"}, "no/such/weights.pt"),
    ],
)
def test_wrong_settings_are_named(dataset_dir, tmp_path, overrides, message):
    with pytest.raises(RuntimeError) as caught:
        run_training(dataset_dir, tmp_path, **{"epochs": 1, **overrides})
    assert message in str(root_cause(caught.value))


def test_two_processes_train_by_torchrun_from_another_folder(dataset_dir, tmp_path):
    BUNDLE.train_in_two_processes(tmp_path, dataset_dir, **SMALL_TRAINING)
    state = torch.load(tmp_path / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 4  # 4 videos, 2 processes, batches of 1, 2 epochs
    assert (tmp_path / "models" / "model.pt").exists()
