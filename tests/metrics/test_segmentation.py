# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from endofm_monai.metrics import frame_scores, segmentation_report
from endofm_monai.metrics.segmentation import enhanced_alignment, structure_measure, weighted_f_measure


def square(top: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[top : top + side, 4 : 4 + side] = True
    return mask


EMPTY = np.zeros((16, 16), bool)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (square(2), square(2), {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "hd95": 0, "mae": 0}),
        (square(2), square(4), {"dice": 0.5, "iou": 1 / 3, "precision": 0.5, "recall": 0.5, "hd95": 2, "mae": 1 / 16}),
        (square(2), square(10), {"dice": 0, "iou": 0, "precision": 0, "recall": 0, "hd95": 8}),
        (EMPTY, EMPTY, {"dice": 1, "iou": 1, "precision": None, "recall": None, "hd95": 0, "weighted_f": None}),
        (square(2), EMPTY, {"dice": 0, "iou": 0, "precision": 0, "recall": None, "hd95": None, "weighted_f": None}),
        (EMPTY, square(2), {"dice": 0, "iou": 0, "precision": None, "recall": 0, "hd95": None}),
    ],
)
def test_scores_of_a_frame_also_of_empty_masks(prediction, truth, expected):
    scores = frame_scores(prediction, prediction.astype(float), truth)
    for name, value in expected.items():
        if value is None:
            assert math.isnan(scores[name]), name
        else:
            assert scores[name] == pytest.approx(value), name


def rows_of(**sequences) -> list[dict[str, Any]]:
    """Scores of the predictions of each sequence, whose truth is a square."""
    return [
        {"group": name, "sequence": name, **frame_scores(mask, mask.astype(float), truth)}
        for name, pairs in sequences.items()
        for mask, truth in pairs
    ]


def test_frames_sequences_and_pixels_are_summed_up():
    """A long sequence that is segmented well, a short one with a half and a whole miss."""
    truth = square(4)
    rows = rows_of(long=[(square(4), truth)] * 6, short=[(square(6), truth), (EMPTY, truth)])
    report = segmentation_report(rows, resamples=200)
    assert (report["frames"], report["sequences"]) == (8, 2)
    assert report["per_frame"]["dice"]["value"] == pytest.approx((6 + 0.5) / 8)
    assert report["per_sequence"]["dice"]["value"] == pytest.approx((1 + 0.25) / 2)
    assert report["pooled"]["dice"]["value"] == pytest.approx(2 * 104 / (7 * 16 + 8 * 16))
    assert report["pooled"]["recall"]["value"] == pytest.approx(104 / 128)
    assert report["per_frame"]["hd95"] == {"value": pytest.approx(2 / 7), "interval": [0, 2], "defined": 7}
    for summary in ("per_frame", "per_sequence", "pooled"):
        assert report[summary]["dice"]["interval"] == pytest.approx([0.25, 1], abs=0.15)
    json.dumps(report, allow_nan=False)


def test_what_no_frame_defines_is_null():
    report = segmentation_report(rows_of(nothing=[(EMPTY, EMPTY)] * 2), resamples=10)
    assert report["per_frame"]["recall"] == {"value": None, "defined": 0}
    assert report["per_frame"]["dice"] == {"value": 1, "interval": None}  # of one sequence
    json.dumps(report, allow_nan=False)


def test_nothing_to_report_is_an_error():
    with pytest.raises(ValueError, match="No frame"):
        segmentation_report([])


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
