# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.nets import EndoFM, EndoFMClassifier, FrameViT, StudentTeacher
from endofm_monai.optimizers import CosineSchedule, PolynomialSchedule, layer_decay_groups, weight_decay_groups


def build(**kwargs) -> EndoFMClassifier:
    return EndoFMClassifier.from_preset("tiny", embed_dim=16, depth=3, num_heads=2, **kwargs)


def test_biases_norms_tokens_and_positions_do_not_decay():
    with torch.device("meta"):
        student = StudentTeacher(EndoFM()).student
    decayed, free = weight_decay_groups(student)
    assert (len(decayed["params"]), len(free["params"])) == (89, 165)
    assert (decayed["decay"], free["decay"], free["weight_decay"]) == (True, False, 0)


@pytest.mark.parametrize("variant", [None, "timm", "clip", "dinov3"])
def test_each_parameter_has_the_rate_of_its_layer_and_the_decay_of_its_kind(variant):
    sizes = {"embed_dim": 16, "depth": 3, "num_heads": 2}
    network = EndoFMClassifier(FrameViT(**sizes, variant=variant), torch.nn.Linear(16, 2)) if variant else build()
    groups = layer_decay_groups(network, 1.0, layer_decay=0.5, weight_decay=0.1)
    found = {parameter: group for group in groups for parameter in group["params"]}
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(learning)
    tables = ("cls_token", "storage_tokens", "pos_embed", "time_embed")
    scales = {**dict.fromkeys(("patch_embed", "norm_pre", *tables), 1 / 16), "norm": 1.0}
    for name, parameter in learning.items():
        parts = name.split(".")
        layer = 1.0 if parts[0] == "head" else scales.get(parts[1])
        expected = 0.5 ** (3 - int(parts[2])) if layer is None else layer
        group = found[parameter]
        assert group["lr"] == group["lr_scale"] == pytest.approx(expected), name
        is_decayed = parameter.ndim > 1 and parts[-1] not in tables
        assert (group["weight_decay"], group["decay"]) == ((0.1, True) if is_decayed else (0.0, False)), name


def test_frozen_parameters_are_left_out_and_an_optimizer_takes_the_groups():
    network = build(mode="linear_probe")
    groups = layer_decay_groups(network, 1e-3)
    torch.optim.AdamW(groups)
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in network.head.parameters()}


@pytest.mark.parametrize("wrong", [0.0, 1.5])
def test_wrong_decay(wrong):
    with pytest.raises(ValueError, match="`layer_decay` must be in"):
        layer_decay_groups(build(), 1.0, wrong)


def test_cosine_equals_the_published_code():
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 0.990166, 0.961095, 0.914058, 0.851109, 0.775, 0.689058, 0.597038]
    expected += [0.502962, 0.410942, 0.325, 0.248891, 0.185942, 0.138905, 0.109834]
    schedule = CosineSchedule(start=1.0, end=0.1, warmup_epochs=1)
    assert [schedule(step, 5, 4) for step in range(20)] == pytest.approx(expected, abs=1e-6)


def test_polynomial_falls_to_zero_after_its_warm_up():
    schedule = PolynomialSchedule(start=1.0, power=1.0, warmup_epochs=1)
    assert [schedule(step, 2, 3) for step in range(6)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert schedule(100, 2, 3) == 0
    assert [PolynomialSchedule(1.0, power=1.0)(step, 2, 2) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("epoch", "lr", "weight_decay", "momentum"),
    [(0, 0, 0.04, 0.996), (10, 2.344e-5, 0.0488, 0.9961), (50, 1.417e-5, 0.22, 0.998), (99, 1.007e-6, 0.3999, 0.99999)],
)
def test_schedules_of_the_published_run(epoch, lr, weight_decay, momentum):
    step = epoch * 2741
    assert CosineSchedule(2.34375e-5, 1e-6, 10)(step, 2741, 100) == pytest.approx(lr, rel=1e-3)
    assert CosineSchedule(0.04, 0.4)(step, 2741, 100) == pytest.approx(weight_decay, rel=1e-3)
    assert CosineSchedule(0.996, 1.0)(step, 2741, 100) == pytest.approx(momentum, rel=1e-5)
