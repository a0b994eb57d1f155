# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from endofm_monai.reference.optimizers import StepSchedule, double_bias_groups

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())["lr"]


@pytest.mark.parametrize(("update", "value"), GOLDEN["lr_used_at_update"].items())
def test_learning_rates_are_the_published_ones(update, value):
    assert StepSchedule(GOLDEN["base_lr"])(int(update) - 1) == pytest.approx(value, rel=1e-7)


def test_biases_learn_twice_as_fast_and_do_not_decay():
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    network[1].weight.requires_grad_(False)
    others, biases = double_bias_groups(network, 0.1, 0.2)
    assert [len(others["params"]), len(biases["params"])] == [1, 2]
    assert (others["lr"], others["weight_decay"]) == (0.1, 0.2)
    assert (biases["lr"], biases["lr_scale"], biases["weight_decay"]) == (0.2, 2.0, 0.0)
