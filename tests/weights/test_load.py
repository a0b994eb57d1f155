# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from endofm_monai.networks.nets import EndoFM
from endofm_monai.weights import WeightsError, initialize_backbone, load_published

GOLDEN = Path(__file__).parents[1] / "data" / "golden_pretraining.json"


def equals(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


class Classifier(nn.Module):
    """A network whose head has another name than in the published file."""

    published_prefixes = {"linear.": "head."}  # noqa: RUF012

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(48, 2)


def test_published_training_checkpoint_reproduces_the_golden_class_tokens(
    tmp_path, make_backbone, training_checkpoint, arr
):
    torch.save(training_checkpoint, tmp_path / "endo_fm.pth")
    backbone = make_backbone()
    report = load_published(backbone, tmp_path / "endo_fm.pth")
    golden = json.loads(GOLDEN.read_text())["tiny"]["cls"]["T4_64x64"]
    with torch.no_grad():
        class_tokens = backbone(arr("x_T4_64x64", (2, 3, 4, 64, 64)))
    torch.testing.assert_close(class_tokens.flatten(), torch.tensor(golden), atol=1e-5, rtol=0)
    assert report.source.endswith("endo_fm.pth (training checkpoint, teacher)")
    assert (len(report.matched), report.missing) == (67, ())
    assert len(report.unexpected) == 8
    assert "loaded 67 of the network's 67 tensors; not used 8 (head.mlp.0.weight" in str(report)


@pytest.mark.parametrize("salt", ["", "student"], ids=["teacher", "student"])
def test_teacher_or_student(tmp_path, make_backbone, backbone_state, training_checkpoint, salt):
    torch.save(training_checkpoint, tmp_path / "endo_fm.pth")
    backbone = make_backbone()
    load_published(backbone, tmp_path / "endo_fm.pth", which=salt or "teacher")
    assert equals(backbone, backbone_state(salt))


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.backbone.", "model.", "_orig_mod.module."])
@pytest.mark.parametrize("nest", [None, "model", "model_state", "state_dict"])
def test_backbone_with_any_prefix_and_nesting(tmp_path, make_backbone, backbone_state, prefix, nest):
    state = {prefix + key: tensor for key, tensor in backbone_state().items()}
    torch.save({nest: state, "epoch": 1} if nest else state, tmp_path / "file.pth")
    backbone = make_backbone()
    load_published(backbone, tmp_path / "file.pth")
    assert equals(backbone, backbone_state())


@pytest.mark.parametrize("old_in_file", [True, False])
@pytest.mark.parametrize("old_in_network", [True, False])
def test_weight_norm_in_both_directions(tmp_path, make_network, wrapper_state, old_in_file, old_in_network):
    published = wrapper_state()
    network = make_network()
    if old_in_network:
        layer = nn.Linear(16, 40, bias=False)
        network.head.last_layer = nn.utils.weight_norm(layer)
    if not old_in_file:
        published = dict(zip(make_network().state_dict(), published.values(), strict=True))
    torch.save(published, tmp_path / "kinetics400_vitb_ssl.pth")
    report = load_published(network, tmp_path / "kinetics400_vitb_ssl.pth")
    assert len(report.matched) == 75
    assert not report.missing
    assert not report.unexpected
    state = network.state_dict()
    assert ("head.last_layer.weight_g" in state) == old_in_network
    names = ("weight_g", "weight_v") if old_in_network else ("original0", "original1")
    for name, published_name in zip(names, ("weight_g", "weight_v"), strict=True):
        loaded = next(tensor for key, tensor in state.items() if key.endswith(name))
        assert torch.equal(loaded, wrapper_state()[f"head.last_layer.{published_name}"])


def test_fine_tuned_classifier(tmp_path, make_backbone, backbone_state, arr):
    linear = {"weight": arr("linear.weight", (2, 48)), "bias": arr("linear.bias", (2,))}
    content = {
        "backbone_state_dict": {f"module.{key}": tensor for key, tensor in backbone_state().items()},
        "state_dict": {f"module.linear.{key}": tensor for key, tensor in linear.items()},
        "epoch": 20,
        "best_f1": 91.5,
    }
    torch.save(content, tmp_path / "polypdiag.pth")
    classifier = Classifier(make_backbone())
    report = load_published(classifier, tmp_path / "polypdiag.pth")
    assert "(fine-tuned classifier, " in report.source
    assert len(report.matched) == 69
    assert equals(classifier.backbone, backbone_state())
    assert equals(classifier.head, linear)

    backbone = make_backbone()
    assert load_published(backbone, tmp_path / "polypdiag.pth").unexpected == ("linear.weight", "linear.bias")
    assert equals(backbone, backbone_state())


def test_two_heads_for_one_name(tmp_path, make_backbone, backbone_state):
    torch.save(backbone_state() | {"linear.bias": torch.ones(2), "head.bias": torch.ones(2)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"file\.pth: several of its tensors have one name"):
        load_published(Classifier(make_backbone()), tmp_path / "file.pth")


def test_a_head_that_the_file_lacks(tmp_path, make_backbone, backbone_state, wrapper_state):
    classifier = Classifier(make_backbone())
    before = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
    torch.save(wrapper_state(), tmp_path / "endo_fm.pth")
    with pytest.raises(WeightsError, match=r"missing 2 \(head\.weight, head\.bias\); unexpected 8 .*network\.backbone"):
        load_published(classifier, tmp_path / "endo_fm.pth")
    assert equals(classifier, before)

    load_published(classifier.backbone, tmp_path / "endo_fm.pth")
    assert equals(classifier.backbone, backbone_state())

    classifier = Classifier(make_backbone())
    report = load_published(classifier, tmp_path / "endo_fm.pth", strict=False)
    assert report.missing == ("head.weight", "head.bias")
    assert equals(classifier.backbone, backbone_state())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("norm.bias"), r"missing 1 \(norm\.bias\)"),
        (lambda state: state.update({"norm.bias": torch.ones(47)}), r"norm\.bias \(47,\) instead of \(48,\)"),
        (lambda state: [state.pop(key) for key in list(state) if "temporal" in key], "image ViT.*initialize_backbone"),
        (lambda state: [state.update({f"x.{key}": state.pop(key)}) for key in list(state)], "seems to hold no transf"),
    ],
    ids=["missing", "shape", "image", "names"],
)
def test_a_backbone_that_does_not_fit_changes_nothing(tmp_path, make_backbone, backbone_state, spoil, message, strict):
    backbone = make_backbone()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    state = backbone_state()
    spoil(state)
    torch.save(state, tmp_path / "spoiled.pth")
    with pytest.raises(WeightsError, match=rf"spoiled\.pth .*does not fit EndoFM.*{message}"):
        load_published(backbone, tmp_path / "spoiled.pth", strict=strict)
    assert equals(backbone, before)


def test_a_network_of_another_preset_is_told_which_one_fits(tmp_path):
    torch.save(EndoFM.from_preset("mini").state_dict(), tmp_path / "mini.pth")
    with pytest.raises(WeightsError, match=r"The file seems .* \(preset mini\); the network has .* \(preset tiny\)\."):
        load_published(EndoFM.from_preset("tiny"), tmp_path / "mini.pth")


def test_an_unexpected_tensor_of_the_backbone(tmp_path, make_backbone, backbone_state):
    torch.save(backbone_state() | {"blocks.0.extra": torch.ones(1)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"unexpected 1 \(blocks\.0\.extra\)"):
        load_published(make_backbone(), tmp_path / "file.pth")
    assert load_published(make_backbone(), tmp_path / "file.pth", strict=False).unexpected == ("blocks.0.extra",)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_what_is_no_floating_point_number_is_refused_by_key(tmp_path, make_backbone, backbone_state, dtype):
    backbone = make_backbone()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    state = backbone_state()
    torch.save(state | {"norm.bias": state["norm.bias"].to(dtype)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=rf"file\.pth: 'norm\.bias' is of type {dtype}"):
        load_published(backbone, tmp_path / "file.pth")
    assert equals(backbone, before)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"embed_dim": 64}, "embed_dim 48, .*the network has embed_dim 64"),
        ({"depth": 2}, "depth 3, .*the network has .*depth 2"),
        ({"patch_size": 8}, "patch_size 16, positions 17, .*the network has .*patch_size 8, positions 65"),
        (
            {"num_frames": 8},
            r"time table has 4 frames, the network's has 8: `resample_time=True` \(in a bundle `--resample",
        ),
    ],
)
def test_another_architecture_is_described(tmp_path, make_backbone, backbone_state, override, message):
    torch.save(backbone_state(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=message):
        load_published(make_backbone(**override), tmp_path / "model.pt")


@pytest.fixture
def long_checkpoint(training_checkpoint, wrapper_state, arr) -> dict[str, object]:
    """What EndoFM-LV writes, with a time table of 32 frames."""
    teacher = wrapper_state() | {"backbone.time_embed": arr("time_embed 32", (1, 32, 48))}
    return training_checkpoint | {"teacher": teacher}


@torch.no_grad()
def test_the_time_table_of_long_videos_by_the_models_own_rule(tmp_path, make_backbone, long_checkpoint, arr):
    torch.save(long_checkpoint, tmp_path / "endofm_lv.pth")
    table = long_checkpoint["teacher"]["backbone.time_embed"]
    long, short, none = make_backbone(num_frames=32), make_backbone(num_frames=8), make_backbone()
    assert "resampled" not in str(load_published(long, tmp_path / "endofm_lv.pth", resample_time=True))
    before = none.time_embed.clone()
    with pytest.raises(WeightsError, match="time table has 32 frames, the network's has 4: `resample_time=True`"):
        load_published(none, tmp_path / "endofm_lv.pth")
    assert torch.equal(none.time_embed, before)

    report = load_published(short, tmp_path / "endofm_lv.pth", resample_time=True)
    assert torch.equal(short.time_embed, table[:, [0, 4, 8, 12, 16, 20, 24, 28]])
    assert str(report).endswith("time table of 32 frames resampled to 8, each with the nearest entry")
    clip = arr("clip", (1, 3, 8, 64, 64))
    assert torch.equal(short(clip), long(clip))


def test_a_fine_tuned_file_of_long_videos(tmp_path, make_backbone, backbone_state, arr):
    backbone = {f"module.{key}": value for key, value in backbone_state().items()}
    content = {
        "epoch": 20,
        "backbone_state_dict": backbone | {"module.time_embed": arr("time_embed 32", (1, 32, 48))},
        "state_dict": {"module.linear.weight": arr("w", (2, 48)), "module.linear.bias": arr("b", (2,))},
        "optimizer": {},
        "scheduler": {},
        "best_f1": np.float64(0.95),
    }
    torch.save(content, tmp_path / "polypdiag.pth")
    classifier = Classifier(make_backbone(num_frames=8))
    assert load_published(classifier, tmp_path / "polypdiag.pth", resample_time=True).missing == ()
    assert torch.equal(classifier.backbone.time_embed, content["backbone_state_dict"]["module.time_embed"][:, ::4])
    network = initialize_backbone(make_backbone(num_frames=2), tmp_path / "polypdiag.pth", resample_time=True)
    assert torch.equal(network.time_embed, content["backbone_state_dict"]["module.time_embed"][:, ::16])


@pytest.mark.parametrize("shape", [(1, 32, 47), (2, 32, 48), (1, 0, 48), (32, 48)])
def test_only_the_length_of_the_time_table_may_differ(tmp_path, make_backbone, backbone_state, shape):
    torch.save(backbone_state() | {"time_embed": torch.ones(shape)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"of another shape 1 \(time_embed"):
        load_published(make_backbone(), tmp_path / "file.pth", resample_time=True)


def test_what_masked_pretraining_adds_is_left_alone(tmp_path, make_backbone, training_checkpoint, backbone_state, arr):
    shapes = {"masked_embed": (1, 48), "decoder.0.weight": (768, 48, 1, 1), "decoder.0.bias": (768,)}
    added = {f"backbone.{key}": arr(key, shape) for key, shape in shapes.items()}
    torch.save(training_checkpoint | {"teacher": training_checkpoint["teacher"] | added}, tmp_path / "m2crl.pth")
    backbone = make_backbone()
    report = load_published(backbone, tmp_path / "m2crl.pth")
    assert equals(backbone, backbone_state())
    assert set(shapes) < set(report.unexpected)


def test_from_a_config_as_often_as_one_likes(tmp_path, make_backbone, backbone_state):
    torch.save(backbone_state(), tmp_path / "model.pt")
    backbone = make_backbone()
    parser = ConfigParser(
        {"_target_": "endofm_monai.weights.load_published", "network": "$None", "path": str(tmp_path / "model.pt")}
    )
    parser["network"] = backbone
    for _ in range(2):
        assert len(parser.get_parsed_content("").matched) == 67
        parser.parse(reset=True)
        assert equals(backbone, backbone_state())


def test_none_keeps_the_random_weights(make_network):
    network = make_network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert initialize_backbone(network) is network
    assert equals(network, before)


def test_only_the_backbone_of_a_network_is_filled(tmp_path, make_network, training_checkpoint, backbone_state, caplog):
    torch.save(training_checkpoint, tmp_path / "endo_fm.pth")
    network = make_network()
    head = {key: tensor.clone() for key, tensor in network.head.state_dict().items()}
    with caplog.at_level(logging.INFO):
        assert initialize_backbone(network, tmp_path / "endo_fm.pth", which="student") is network
    assert equals(network.head, head)
    assert equals(network.backbone, backbone_state("student"))
    assert "endo_fm.pth (training checkpoint, student): loaded 67 of the network's 67 tensors" in caplog.text


def test_from_a_config(tmp_path, backbone_state):
    torch.save(backbone_state(), tmp_path / "model.pt")
    parser = ConfigParser(
        {
            "backbone_weights": str(tmp_path / "model.pt"),
            "backbone": {
                "_target_": "endofm_monai.weights.initialize_backbone",
                "network": {
                    "_target_": "endofm_monai.networks.nets.EndoFM",
                    "img_size": 64,
                    "num_frames": 4,
                    "embed_dim": 48,
                    "depth": 3,
                    "num_heads": 4,
                },
                "weights": "@backbone_weights",
            },
        }
    )
    backbone = parser.get_parsed_content("backbone")
    assert torch.equal(backbone.pos_embed, backbone_state()["pos_embed"])


def test_a_network_without_backbone_or_a_missing_file(tmp_path, make_network):
    with pytest.raises(TypeError, match="got Linear"):
        initialize_backbone(nn.Linear(2, 2), tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"none\.pth: there is no such file"):
        initialize_backbone(make_network(), tmp_path / "none.pth")


def test_counters_of_a_network_are_no_weights(tmp_path):
    network = nn.Sequential(EndoFM.from_preset("tiny", depth=1, img_size=32), nn.BatchNorm2d(3))
    network[1].num_batches_tracked.fill_(7)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    network[1].num_batches_tracked.zero_()
    load_published(network, tmp_path / "model.pt")
    assert int(network[1].num_batches_tracked) == 7
