# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from trial import TRIAL_INFERENCE, TRIAL_TRAINING

from endofm_monai.inferers import load_predictor
from endofm_monai.utils import as_class_names, as_device, check_settings

BUNDLES = Path(__file__).parents[2] / "bundle"
FOR_INFERENCE = {"tiny_inference", "reference_inference", "embeddings"}


def check(bundle: str, *names: str, **overrides: Any) -> None:
    folder = BUNDLES / bundle / "configs"
    parser = ConfigParser()
    parser.read_config([str(folder / f"{name}.json") for name in names])
    parser.update(overrides)
    check_settings(parser, folder)


@pytest.mark.parametrize("base", ["train", "inference"])
@pytest.mark.parametrize("bundle", sorted(TRIAL_TRAINING))
def test_what_the_bundles_say_is_right(bundle, base, caplog):
    trial = (TRIAL_TRAINING if base == "train" else TRIAL_INFERENCE)[bundle]
    names = {path.stem for path in (BUNDLES / bundle / "configs").glob("*.json")} - {"metadata", "train", "inference"}
    for overlay in names & FOR_INFERENCE if base == "inference" else names - FOR_INFERENCE:
        check(bundle, base, overlay)
        assert "nothing uses it" not in caplog.text
        check(bundle, base, overlay, **trial)
        caplog.clear()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 1}, "`epoch`: no config has such a key. Did you mean `epochs`?"),
        ({"batchsize": 1}, "`batchsize`: no config has such a key. Did you mean `batch_size`?"),
        ({"q": 1}, "`q`: no config has such a key. Those it has"),
        ({"train::trainer::max_epoch": 1}, "`train::trainer::max_epoch`: .* mean `train::trainer::max_epochs`?"),
        ({"train#dataloader#batchsize": 1}, "Did you mean `train::dataloader::batch_size`?"),
        ({"optimizer::weigth_decay": 1}, "torch.optim.AdamW has no such argument. Did you mean `optimizer::weight_de"),
        ({"optimizer": {"_target_": "torch.optim.AdamW"}}, "`optimizer`: torch.optim.AdamW needs `params`, which noth"),
        ({"train#dataset#data": [{"image": "a", "label": "b"}]}, "`train::dataset::data`: another program lists these"),
        ({"epochs": "two"}, "`epochs` must be a whole number from 1 on, found 'two'."),
        ({"epochs": 1.5}, "`epochs` must be a whole number from 1 on, found 1.5."),
        ({"epochs": None}, "`epochs` must be a whole number from 1 on, found None."),
        ({"epochs": True}, "`epochs` must be a whole number from 1 on, found True."),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1 on, found 0."),
        ({"num_workers": -1}, "`num_workers` must be a whole number from 0 on, found -1."),
        ({"learning_rate": "fast"}, "`learning_rate` must be a number above 0, found 'fast'."),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a number above 0, found nan."),
        ({"learning_rate": 0}, "`learning_rate` must be a number above 0, found 0."),
        ({"max_gradient_norm": float("inf")}, "`max_gradient_norm` must be a number above 0, found inf."),
        ({"multi_label": "false"}, "`multi_label` must be True or False, found 'false'."),
        ({"amp": "no"}, "`amp` must be True or False, found 'no'."),
        ({"resume": 3}, "`resume` must be True or False or text, found 3."),
        ({"resume": "true"}, "`resume` must be True or False or text, found 'true'."),
        ({"weights": 5}, "`weights` must be text, found 5."),
        ({"dataset_dir": 2024}, "`dataset_dir` must be text, found 2024."),
        ({"mean": [0.5, 0.5, "x"]}, "`mean` must be a number from 0 to 1, found 'x'."),
        ({"std": [0, 0, 0]}, "`std` must be a number above 0, found 0."),
        ({"class_weights": 5}, "`class_weights` must be a list or text, found 5."),
        ({"class_weights": ["a", "b"]}, "`class_weights` must be a number above 0, found 'a'."),
        ({"class_weights": [-1, 1]}, "`class_weights` must be a number above 0, found -1."),
        ({"label_smoothing": 5}, "`label_smoothing` must be a number from 0 to below 1, found 5."),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be a number from 0 to below 1, found 1.0."),
        ({"amp_dtype": "float16"}, "`amp_dtype` must be .*torch.bfloat16 or .*torch.float16, found 'float16'."),
        ({"amp_dtype": None}, "`amp_dtype` must be .*torch.bfloat16 or .*torch.float16, found None."),
        ({"average_decay": 1}, "`average_decay` must be a number from 0 to below 1, found 1."),
        ({"average_decay": "slow"}, "`average_decay` must be a number from 0 to below 1, found 'slow'."),
        ({"ckpt_dir": 2024}, "`ckpt_dir` must be text, found 2024."),
        ({"train": 5}, "`train` must be a section, found 5."),
        ({"class_names": 5}, "`class_names` must be a name or a list of different names, found 5."),
        ({"device": "gpu"}, "`device` must be one to compute on, here cpu.*, found 'gpu'."),
        ({"device": "meta"}, "`device` must be one to compute on, here cpu.*, found 'meta'."),
    ],
    ids=str,
)
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        check("endofm_polyp_classification", "train", "tiny", **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crop_scale", [[1.0, 0.5], [0.5], [0, 1]])
def test_a_range_goes_from_its_smallest_number_to_its_largest(crop_scale):
    with pytest.raises(ValueError, match="`crop_scale` must be the smallest and the largest of two numbers above 0"):
        check("endofm_polyp_segmentation", "train", crop_scale=crop_scale)


@pytest.mark.parametrize(
    "overrides",
    [
        {"epochs": "$1 + 1", "warmup_epochs": 0.5, "num_workers": 0, "learning_rate": 1, "max_gradient_norm": None},
        {"amp_dtype": "$torch.float16", "label_smoothing": 0.9},
        {"amp_dtype": torch.float16},
        {"resume": True, "amp": False, "device": "cpu", "weights": "a.pt", "backbone_weights": Path("b.pt")},
        {"resume": "some/checkpoint.pt", "device": torch.device("cpu"), "datalist": None, "class_weights": "balanced"},
        {"class_names": "polyp", "class_weights": [1, 2.5], "network_def::embed_dim": 16, "val_section": "test"},
        {
            "train#dataset#data": [{"name": "a", "image": "a", "label": 1}],
            "train#trainer#max_epochs": 3,
            "train#handlers": [],
        },
        {"run_name": "third", "tracking_uri": "here", "experiment_name": "x", "verbose_errors": True, "_note_": 1},
        {"my_epochs": 3, "epochs": "@my_epochs"},
        {"run": "@train::trainer", "initialize": [], "finalize": []},
        {"optimizer": {"_target_": "torch.optim.AdamW", "_disabled_": True}},
        {"optimizer": {"_target_": "torch.optim.AdamW", "_mode_": "partial"}},
    ],
    ids=str,
)
def test_right_settings_pass(overrides):
    check("endofm_polyp_classification", "train", "tiny", **overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"teacher_temperature": 0}, "`teacher_temperature` must be a number above 0, found 0."),
        ({"token_drop": 1}, "`token_drop` must be a number from 0 to below 1, found 1."),
    ],
)
def test_numbers_by_which_nothing_could_be_learned_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        check("endofm_pretraining", "train", "small", "tiny", **overrides)


def test_what_only_another_config_has_is_warned_of(caplog):
    check("endofm_polyp_classification", "train", section="test")
    assert "`section`: nothing uses it in this run. Did you mean `val_section`?" in caplog.text


@pytest.mark.parametrize(
    ("bundle", "names", "key", "value"),
    [
        ("endofm_pretraining", ["train", "vcl", "tiny"], "base_learning_rate", 0.1),
        ("endofm_pretraining", ["train", "small", "vcl"], "teacher_momentum", 0.5),  # what is left of it is disabled
        ("endofm_polyp_classification", ["train", "reference"], "layer_decay", 0.5),
        ("endofm_polyp_classification", ["train", "st_adapter"], "last_blocks", 3),
        ("endofm_polyp_segmentation", ["train", "adapter"], "frozen_blocks", 2),
        ("endofm_polyp_detection", ["train", "reference"], "turn_prob", 0.5),
    ],
)
def test_what_an_overlay_leaves_without_effect_is_warned_of(bundle, names, key, value, caplog):
    check(bundle, *names)
    assert caplog.text == ""
    check(bundle, *names, **{key: value})
    assert f"`{key}`: nothing uses it in this run. A config replaced what would." in caplog.text


def test_parts_of_a_section_and_lists_of_names():
    with pytest.raises(ValueError, match="`views::global_size` must be a whole number from 1 on, found 'two'."):
        check("endofm_pretraining", "train", **{"views::global_size": "two"})
    with pytest.raises(ValueError, match="`teacher_momentum` must be a number from 0 to 1, found 5."):
        check("endofm_pretraining", "train", teacher_momentum=5)
    with pytest.raises(ValueError, match="`part_minutes` must be a number above 0, found 'abc'."):
        check("endofm_polyp_segmentation", "inference", part_minutes="abc")
    check("endofm_polyp_segmentation", "inference", formats="png")
    with pytest.raises(ValueError, match="`formats` must be text, found 3."):
        check("endofm_polyp_segmentation", "inference", formats=["png", 3])


def test_other_files_beside_the_configs_do_not_matter(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps({"epochs": 3, "run": "@epochs"}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.yaml").write_text("- 1")
    parser = ConfigParser({"epochs": 4, "run": "@epochs"})
    check_settings(parser, tmp_path)
    with pytest.raises(ValueError, match="`epoch`"):
        check_settings(ConfigParser({**parser.get(), "epoch": 4}), tmp_path)


def test_the_predictor_of_a_bundle_takes_known_settings_only(tmp_path):
    with pytest.raises(ValueError, match="`mirrored`: no config has such a key. Did you mean `mirror`?"):
        load_predictor(BUNDLES / "endofm_polyp_segmentation", mirrored=True)
    with pytest.raises(ValueError, match="`device` must be one to compute on"):
        load_predictor(BUNDLES / "endofm_polyp_segmentation", "meta")


def test_a_name_alone_is_one_class():
    assert as_class_names("polyp") == ["polyp"]
    assert as_class_names(("a", "b")) == as_class_names(["a", "b"]) == ["a", "b"]
    parser = ConfigParser()
    for bundle, argument in (("endofm_polyp_classification", "train"), ("endofm_polyp_detection", "inference")):
        parser.read_config(str(BUNDLES / bundle / "configs" / f"{argument}.json"))
        parser.update({"class_names": "polyp", **TRIAL_INFERENCE[bundle]})
        assert parser.get_parsed_content("classes") == ["polyp"]


@pytest.mark.parametrize(
    "names", [5, 1.5, True, None, {"polyp": 1}, [], "", " ", ["a", ""], ["a", "a"], [1, 2], [["a"]]]
)
def test_what_are_no_names_is_refused(names):
    with pytest.raises(ValueError, match="`class_names` must be a name or a list of different names, found "):
        as_class_names(names)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "", None, -1, [0]])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ValueError, match="`device` must be one to compute on, here cpu"):
        as_device(device)
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")
