# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch

from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import CosineSchedule, PolynomialSchedule, weight_decay_groups


def test_cosine_equals_the_published_code():
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 0.990166, 0.961095, 0.914058, 0.851109, 0.775, 0.689058, 0.597038]
    expected += [0.502962, 0.410942, 0.325, 0.248891, 0.185942, 0.138905, 0.109834]
    schedule = CosineSchedule(start=1.0, end=0.1, warmup_epochs=1)
    assert [schedule(step, 5, 4) for step in range(20)] == pytest.approx(expected, abs=1e-6)


def test_polynomial_falls_to_zero_after_its_warm_up():
    schedule = PolynomialSchedule(start=1.0, power=1.0, warmup_epochs=1)
    assert [schedule(step, 2, 3) for step in range(6)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert schedule(100, 2, 3) == 0


def test_polynomial_equals_the_published_code_where_that_is_late():
    expected = {1: 1e-4, 2: 1e-4, 3: 9.9969999e-05, 100: 9.7055139e-05, 1500: 5.3652975e-05, 3000: 1.3852172e-07}
    schedule = PolynomialSchedule(start=1e-4, reference_late=True)
    for update, value in expected.items():
        assert schedule(update - 1, steps_per_epoch=20, epochs=150) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("epoch", "lr", "weight_decay", "momentum"),
    [(0, 0, 0.04, 0.996), (10, 2.344e-5, 0.0488, 0.9961), (50, 1.417e-5, 0.22, 0.998), (99, 1.007e-6, 0.3999, 0.99999)],
)
def test_schedules_of_the_published_run(epoch, lr, weight_decay, momentum):
    step = epoch * 2741
    assert CosineSchedule(2.34375e-5, 1e-6, 10)(step, 2741, 100) == pytest.approx(lr, rel=1e-3)
    assert CosineSchedule(0.04, 0.4)(step, 2741, 100) == pytest.approx(weight_decay, rel=1e-3)
    assert CosineSchedule(0.996, 1.0)(step, 2741, 100) == pytest.approx(momentum, rel=1e-5)


def test_weight_decay_groups_of_the_published_network():
    with torch.device("meta"):
        student = StudentTeacher(EndoFM()).student
    decayed, free = weight_decay_groups(student, reference_decay_tokens=True)
    assert (len(decayed["params"]), sum(value.numel() for value in decayed["params"])) == (92, 144_140_800)
    assert (len(free["params"]), sum(value.numel() for value in free["params"])) == (162, 190_976)
    assert free["weight_decay"] == 0
    decayed, free = weight_decay_groups(student)
    assert (len(decayed["params"]), len(free["params"])) == (89, 165)


def test_published_classification_changes_the_rate_between_epochs():
    schedule = CosineSchedule(start=1.5625e-5, end=0.0, reference_by_epoch=True)
    rates = [schedule(step, steps_per_epoch=41, epochs=20) for step in range(820)]
    for epoch in range(20):
        expected = 1.5625e-5 * (1 + math.cos(math.pi * epoch / 20)) / 2
        assert rates[41 * epoch : 41 * (epoch + 1)] == pytest.approx([expected] * 41)
