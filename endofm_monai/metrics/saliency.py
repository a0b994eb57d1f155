# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate, distance_transform_edt

__all__ = ["enhanced_alignment", "structure_measure", "weighted_f_measure"]

EPS = np.finfo(np.float64).eps


def structure_measure(probability: np.ndarray, truth: np.ndarray) -> float:
    """S-measure: how alike a map and a mask are as objects and in their four quarters (Fan et al., ICCV 2017).

    Without foreground in the truth it is one minus the mean probability, without background the mean probability.

    Args:
        probability: ``(H, W)`` in ``[0, 1]``.
        truth: boolean ``(H, W)``.

    Returns:
        a number in ``[0, 1]``.
    """
    share = truth.mean()
    if share in (0, 1):
        return float(probability.mean() if share else 1 - probability.mean())
    objects = share * _object_score(probability[truth]) + (1 - share) * _object_score(1 - probability[~truth])

    row, column = (round(float(index.mean())) + 1 for index in np.nonzero(truth))
    regions = 0.0
    for rows in (slice(row), slice(row, None)):
        for columns in (slice(column), slice(column, None)):
            quarter = truth[rows, columns]
            if quarter.size:
                regions += quarter.size / truth.size * _similarity(probability[rows, columns], quarter)
    return max(0.0, float(objects + regions) / 2)


def _object_score(values: np.ndarray) -> float:
    mean = values.mean()
    deviation = values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _similarity(probability: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of a whole region."""
    mean, true_mean = probability.mean(), truth.mean()
    count = max(truth.size - 1, 1)
    variance = ((probability - mean) ** 2).sum() / count
    true_variance = ((truth - true_mean) ** 2).sum() / count
    covariance = ((probability - mean) * (truth - true_mean)).sum() / count
    numerator = 4 * mean * true_mean * covariance
    denominator = (mean**2 + true_mean**2) * (variance + true_variance)
    if numerator != 0:
        return float(numerator / (denominator + EPS))
    return 1.0 if denominator == 0 else 0.0


def enhanced_alignment(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """E-measure of a map at each of 256 thresholds (Fan et al., IJCAI 2018).

    A pixel's alignment depends only on which of the four cells of the confusion matrix it is in, so that four counts
    a threshold are enough.

    Args:
        probability: ``(H, W)`` in ``[0, 1]``.
        truth: boolean ``(H, W)``.

    Returns:
        ``(256,)``: for a prediction of ``probability >= t / 255`` with t from 0 to 255.
    """
    levels = np.floor(probability * 255).astype(np.int64)

    def at_least(selected: np.ndarray) -> np.ndarray:
        return np.bincount(levels[selected], minlength=256)[::-1].cumsum()[::-1].astype(np.float64)

    size, positive = truth.size, np.count_nonzero(truth)
    true_positive, false_positive = at_least(truth), at_least(~truth)
    predicted = true_positive + false_positive
    if positive in (0, size):
        return (predicted if positive else size - predicted) / (size - 1 + EPS)
    mean, true_mean = predicted / size, positive / size
    cells = (  # how many, and how far prediction and truth are from their means there
        (true_positive, 1 - mean, 1 - true_mean),
        (false_positive, 1 - mean, -true_mean),
        (positive - true_positive, -mean, 1 - true_mean),
        (size - positive - false_positive, -mean, -true_mean),
    )
    total = np.zeros(256)
    for count, deviation, true_deviation in cells:
        alignment = 2 * deviation * true_deviation / (deviation**2 + true_deviation**2 + EPS)
        total += count * (alignment + 1) ** 2 / 4
    return total / (size - 1 + EPS)


def weighted_f_measure(probability: np.ndarray, truth: np.ndarray) -> float:
    """F-measure that weighs errors by where they are (Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014).

    Args:
        probability: ``(H, W)`` in ``[0, 1]``.
        truth: boolean ``(H, W)``.

    Returns:
        a number in ``[0, 1]``, or NaN when the truth has no foreground, for which it is not defined.
    """
    if not truth.any():
        return float("nan")
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(probability - truth)
    spread = error[tuple(nearest)]  # background pixels take the error of the nearest foreground pixel
    offset = np.arange(-3, 4)
    kernel = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 5**2))
    smooth = correlate(spread, kernel / kernel.sum(), mode="constant")
    weighed = np.where(truth, np.minimum(error, smooth), error * (2 - np.exp(np.log(0.5) / 5 * distance)))
    recall = 1 - weighed[truth].mean()
    true_positive = truth.sum() - weighed[truth].sum()
    precision = true_positive / (true_positive + weighed[~truth].sum() + EPS)
    return float(2 * precision * recall / (precision + recall + EPS))
