# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from endofm_monai.optimizers import CosineSchedule, PolynomialSchedule


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
