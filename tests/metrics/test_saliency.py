# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest

from endofm_monai.metrics import enhanced_alignment, structure_measure, weighted_f_measure


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A map of 8 bits and the mask of an ellipse that it misses by a few pixels."""
    y, x = np.mgrid[:48, :64]
    truth = ((y - 20) / 11) ** 2 + ((x - 30) / 17) ** 2 < 1
    distance = np.sqrt(((y - 22) / 12) ** 2 + ((x - 33) / 16) ** 2)
    probability = np.floor(255 / (1 + np.exp(8 * (distance - 1)))) / 255
    probability[0, 0], probability[20, 30] = 0, 1
    return probability, truth


def test_values_are_those_of_the_library_that_the_field_uses(pair):
    # PySODMetrics 1.6.2 on the same map and mask
    assert structure_measure(*pair) == pytest.approx(0.861146352, rel=1e-6)
    assert weighted_f_measure(*pair) == pytest.approx(0.743784500, rel=1e-6)
    curve = enhanced_alignment(*pair)
    assert curve.shape == (256,)
    assert curve.max() == pytest.approx(0.943876373, rel=1e-6)
    assert curve.mean() == pytest.approx(0.853923187, rel=1e-6)


def test_perfect_and_opposite(pair):
    truth = pair[1]
    perfect, opposite = truth.astype(float), 1.0 - truth
    assert structure_measure(perfect, truth) == pytest.approx(1)
    assert weighted_f_measure(perfect, truth) == pytest.approx(1)
    assert enhanced_alignment(perfect, truth)[128] == pytest.approx(1, abs=1e-3)
    assert structure_measure(opposite, truth) < 0.2
    assert weighted_f_measure(opposite, truth) < 0.01
    assert enhanced_alignment(opposite, truth)[128] < 0.01


@pytest.mark.parametrize("full", [False, True])
def test_masks_of_one_kind(full):
    truth = np.full((10, 12), full)
    probability = np.full((10, 12), 0.25)
    assert structure_measure(probability, truth) == pytest.approx(0.25 if full else 0.75)
    curve = enhanced_alignment(probability, truth)
    assert curve[200] == pytest.approx(0 if full else 120 / 119)
    assert math.isnan(weighted_f_measure(probability, truth)) is not full
