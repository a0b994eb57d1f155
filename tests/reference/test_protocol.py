# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from endofm_monai.networks.nets import EndoFM
from endofm_monai.reference import (
    ReferenceCosineSchedule,
    ReferenceDetector,
    ReferenceGradientHandler,
    ReferencePolynomialSchedule,
    ReferenceStepSchedule,
    ReferenceStudentTeacher,
    reference_bias_groups,
    reference_clip_scores,
    reference_decay_groups,
)

DATA = Path(__file__).parents[1] / "data"
RATES = json.loads((DATA / "golden_detection.json").read_text())["lr"]
SCORES = json.loads((DATA / "golden_segmentation.json").read_text())["metrics"]


def test_offsets_of_the_detector_do_not_learn():
    network = ReferenceDetector.from_preset("tiny", embed_dim=32, depth=2, num_heads=2)
    assert isinstance(network, ReferenceDetector)
    assert not network.head.regression.bbox_reg.bias.any()
    network(torch.randn(1, 3, 2, 64, 96)).square().mean().backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {f"head.{branch}_transformation.conv_offset.weight" for branch in ("class", "box")}


def test_the_teacher_drops_paths():
    backbone = EndoFM(img_size=32, num_frames=2, embed_dim=16, depth=1, num_heads=2)
    pair = ReferenceStudentTeacher(backbone, num_prototypes=4, hidden_dim=8, bottleneck_dim=8).train()
    assert pair.teacher.backbone.training
    assert not pair.eval().teacher.backbone.training


def test_each_tensor_is_clipped_for_itself():
    network = nn.ModuleDict({"student": nn.Linear(4, 2)})
    engine = SimpleNamespace(network=network, state=SimpleNamespace(epoch=2))
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    ReferenceGradientHandler(max_norm=3.0)._clip(engine)
    assert [float(parameter.grad.norm()) for parameter in network.parameters()] == pytest.approx([3.0, 3.0], abs=1e-4)
    assert float(engine.state.gradient_norm) == pytest.approx((10 * 100) ** 0.5)


def test_polynomial_is_late():
    expected = {1: 1e-4, 2: 1e-4, 3: 9.9969999e-05, 100: 9.7055139e-05, 1500: 5.3652975e-05, 3000: 1.3852172e-07}
    schedule = ReferencePolynomialSchedule(start=1e-4)
    for update, value in expected.items():
        assert schedule(update - 1, steps_per_epoch=20, epochs=150) == pytest.approx(value, rel=1e-6)


def test_classification_changes_the_rate_between_epochs():
    schedule = ReferenceCosineSchedule(start=1.5625e-5, end=0.0)
    rates = [schedule(step, steps_per_epoch=41, epochs=20) for step in range(820)]
    for epoch in range(20):
        expected = 1.5625e-5 * (1 + math.cos(math.pi * epoch / 20)) / 2
        assert rates[41 * epoch : 41 * (epoch + 1)] == pytest.approx([expected] * 41)


@pytest.mark.parametrize(("update", "value"), RATES["lr_used_at_update"].items())
def test_learning_rates_of_the_detection(update, value):
    assert ReferenceStepSchedule(RATES["base_lr"])(int(update) - 1) == pytest.approx(value, rel=1e-7)


def test_biases_learn_twice_as_fast_and_do_not_decay():
    network = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    network[1].weight.requires_grad_(False)
    others, biases = reference_bias_groups(network, 0.1, 0.2)
    assert [len(others["params"]), len(biases["params"])] == [1, 2]
    assert (others["lr"], others["weight_decay"]) == (0.1, 0.2)
    assert (biases["lr"], biases["lr_scale"], biases["weight_decay"]) == (0.2, 2.0, 0.0)


def test_class_token_and_tables_decay():
    with torch.device("meta"):
        student = ReferenceStudentTeacher(EndoFM()).student
    decayed, free = reference_decay_groups(student)
    assert (len(decayed["params"]), sum(value.numel() for value in decayed["params"])) == (92, 144_140_800)
    assert (len(free["params"]), sum(value.numel() for value in free["params"])) == (162, 190_976)
    assert (decayed["decay"], free["decay"], free["weight_decay"]) == (True, False, 0)


def mask_of(case: dict[str, Any], kind: str, arr: Any) -> np.ndarray:
    if kind in case:
        name, threshold = re.match(r'arr\(prefix\+"(.*)", \(.*\)\) > ([\d.]+)', case[kind]).groups()
        return arr(name, case["shape"]).numpy() > float(threshold)
    mask = np.zeros(case["shape"], bool)
    for t0, t1, y0, y1, x0, x1 in case[f"{kind}_boxes_t0_t1_y0_y1_x0_x1"]:
        mask[t0:t1, y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("case", SCORES["cases"], ids=lambda case: case["name"])
def test_scores_of_clips(case, arr):
    scores = reference_clip_scores(mask_of(case, "pred", arr), mask_of(case, "target", arr))
    assert scores["dice"] == pytest.approx(case["dice_reference"], rel=1e-6)
    assert scores["hd95"] == pytest.approx(case["hd95_reference"], rel=1e-6)
