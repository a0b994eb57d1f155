# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.nets import EndoFM, EndoFMClassifier, StudentTeacher
from endofm_monai.optimizers import layer_decay_groups, weight_decay_groups


def build(**kwargs) -> EndoFMClassifier:
    return EndoFMClassifier.from_preset("tiny", embed_dim=16, depth=3, num_heads=2, **kwargs)


def test_biases_norms_tokens_and_positions_do_not_decay():
    with torch.device("meta"):
        student = StudentTeacher(EndoFM()).student
    decayed, free = weight_decay_groups(student)
    assert (len(decayed["params"]), len(free["params"])) == (89, 165)
    assert (decayed["decay"], free["decay"], free["weight_decay"]) == (True, False, 0)


def test_each_parameter_has_the_rate_of_its_layer_and_the_decay_of_its_kind():
    network = build()
    groups = layer_decay_groups(network, 1.0, layer_decay=0.5, weight_decay=0.1)
    found = {parameter: group for group in groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    scales = {"patch_embed": 1 / 16, "cls_token": 1 / 16, "pos_embed": 1 / 16, "time_embed": 1 / 16, "norm": 1.0}
    for name, parameter in network.named_parameters():
        parts = name.split(".")
        layer = 1.0 if parts[0] == "head" else scales.get(parts[1])
        expected = 0.5 ** (3 - int(parts[2])) if layer is None else layer
        group = found[parameter]
        assert group["lr"] == group["lr_scale"] == pytest.approx(expected), name
        is_decayed = parameter.ndim > 1 and parts[-1] not in ("cls_token", "pos_embed", "time_embed")
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
