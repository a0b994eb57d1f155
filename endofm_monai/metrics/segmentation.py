# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import distance_transform_edt, gaussian_filter

from endofm_monai.metrics.classification import bootstrap_intervals, mean_of_defined

EPS = np.finfo(np.float64).eps


def structure_measure(probability: np.ndarray, truth: np.ndarray) -> float:
    """S-measure, in [0, 1]: how alike a map and a mask are as objects and in their quarters (Fan et al., ICCV 2017).

    Here and below maps are probabilities ``(H, W)`` in [0, 1] of the foreground, masks boolean ``(H, W)``.
    Without foreground in the truth it is one minus the mean probability, without background the mean probability.
    """
    share = truth.mean()
    if share in (0, 1):
        return float(probability.mean() if share else 1 - probability.mean())
    objects = share * _object_score(probability[truth]) + (1 - share) * _object_score(1 - probability[~truth])

    row, column = (round(float(index.mean())) + 1 for index in np.nonzero(truth))
    regions = 0.0
    for quarter in product((slice(row), slice(row, None)), (slice(column), slice(column, None))):
        if size := truth[quarter].size:
            regions += size / truth.size * _similarity(probability[quarter], truth[quarter])
    return max(0.0, float(objects + regions) / 2)


def _object_score(values: np.ndarray) -> float:
    mean = values.mean()
    return 2 * mean / (mean**2 + 1 + values.std(ddof=min(values.size - 1, 1)) + EPS)


def _similarity(probability: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of a whole region."""
    mean, true_mean = probability.mean(), truth.mean()
    (variance, covariance), (_, true_variance) = np.cov(probability.flat, truth.flat, ddof=min(truth.size - 1, 1))
    numerator = 4 * mean * true_mean * covariance
    denominator = (mean**2 + true_mean**2) * (variance + true_variance)
    if numerator != 0:
        return float(numerator / (denominator + EPS))
    return 1.0 if denominator == 0 else 0.0


def enhanced_alignment(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """E-measure ``(256,)`` of a map, for ``probability >= t / 255`` with t from 0 to 255 (Fan et al., IJCAI 2018).

    A pixel's alignment depends only on its cell of the confusion matrix: four counts a threshold are enough.
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

    In [0, 1], or NaN when the truth has no foreground, for which it is not defined.
    """
    if not truth.any():
        return float("nan")
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(probability - truth)
    spread = error[tuple(nearest)]  # background pixels take the error of the nearest foreground pixel
    smooth = gaussian_filter(spread, sigma=5, radius=3, mode="constant")
    weighed = np.where(truth, np.minimum(error, smooth), error * (2 - np.exp(np.log(0.5) / 5 * distance)))
    recall = 1 - weighed[truth].mean()
    true_positive = truth.sum() - weighed[truth].sum()
    precision = true_positive / (true_positive + weighed[~truth].sum() + EPS)
    return float(2 * precision * recall / (precision + recall + EPS))


COUNTS = ("true_positive", "false_positive", "false_negative")
SCORES = ("dice", "iou", "precision", "recall", "hd95", "weighted_f", "s_measure", "mae")


def frame_scores(prediction: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Scores of one frame, as the polyp field reports them, at the size of the frame; NaN where undefined.

    Of two empty masks ``dice`` and ``iou`` are 1 and ``hd95`` is 0. Without a true foreground ``recall`` and
    ``weighted_f`` are undefined, without a predicted one ``precision``, and with only one of them ``hd95``.

    Returns:
        these scores, ``s_measure`` and ``mae`` (mean absolute error), the counts of pixels ``true_positive``,
        ``false_positive``, ``false_negative``, and as ``alignment`` :func:`enhanced_alignment`. ``hd95`` is in pixels:
        the larger of the two 95th percentiles of distances from one contour to the other. ``weighted_f``,
        ``s_measure``, ``mae`` and ``alignment`` are those of the ``probability``.
    """
    hits, predicted, positive = (int(np.count_nonzero(mask)) for mask in (prediction & truth, prediction, truth))
    distance = float("nan") if predicted or positive else 0.0
    if predicted and positive:
        masks = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
        distance = float(compute_hausdorff_distance(*masks, include_background=True, percentile=95))
    return {
        **_overlap(hits, predicted, positive),
        "hd95": distance,
        "weighted_f": weighted_f_measure(probability, truth),
        "s_measure": structure_measure(probability, truth),
        "mae": float(np.abs(probability - truth).mean()),
        "true_positive": hits,
        "false_positive": predicted - hits,
        "false_negative": positive - hits,
        "alignment": enhanced_alignment(probability, truth),
    }


def _overlap(hits: float, predicted: float, positive: float) -> dict[str, float]:
    """Dice, IoU, precision and recall of numbers of pixels."""
    return {
        "dice": 2 * hits / (predicted + positive) if predicted + positive else 1.0,
        "iou": hits / (predicted + positive - hits) if predicted + positive else 1.0,
        "precision": hits / predicted if predicted else float("nan"),
        "recall": hits / positive if positive else float("nan"),
    }


def segmentation_report(rows: Sequence[Mapping[str, Any]], resamples: int = 1000) -> dict[str, Any]:
    """Sum up the scores of frames for frames, sequences and pixels, with 95 % intervals.

    Neighboring frames are alike, so the bootstrap intervals draw whole groups, each with all of its sequences. The
    ``rows`` hold of each frame :func:`frame_scores`, the name of its ``sequence``, and that of its ``group``.

    Returns:
        number of ``frames``, ``sequences`` and ``groups``, and three summaries: ``per_frame``, the mean over all
        frames; ``per_sequence``, the mean over sequences of the mean over their frames, so that long ones count no
        more; and ``pooled``, from the pixels of all frames taken together. Each maps a score to ``value`` (None where
        no frame defines it), ``interval`` (None of a single group) and, where some are left out, how many are
        ``defined``. ``e_measure`` is the E-measure at the threshold that is best on average, as usual in the field.
    """
    if not rows:
        raise ValueError("No frame was scored.")
    names = np.array([row["sequence"] for row in rows])
    _, sequence, length = np.unique(names, return_inverse=True, return_counts=True)
    values = {name: np.array([row[name] for row in rows], np.float64)[:, None] for name in SCORES}
    values["e_measure"] = np.stack([row["alignment"] for row in rows])
    counts = np.array([[row[name] for name in COUNTS] for row in rows], np.float64)

    statistics: dict[tuple[str, str], Callable[[np.ndarray], float]] = {}
    defined: dict[tuple[str, str], int] = {}
    for name, value in values.items():
        means = np.stack([mean_of_defined(value[sequence == index]) for index in range(len(length))])
        statistics["per_frame", name] = _best_mean(value, np.ones(len(names)))
        statistics["per_sequence", name] = _best_mean(means[sequence], 1 / length[sequence])
        if np.isnan(value).any():
            defined["per_frame", name] = int(np.isfinite(value).sum())
            defined["per_sequence", name] = int(np.isfinite(means).sum())

    def summarize(items: np.ndarray) -> dict[tuple[str, str], float]:
        drawn = np.bincount(items, minlength=len(rows))
        hits, excess, missed = drawn @ counts
        pooled = _overlap(hits, hits + excess, hits + missed)
        return {
            **{key: statistic(drawn) for key, statistic in statistics.items()},
            **{("pooled", name): value for name, value in pooled.items()},
        }

    groups = [row["group"] for row in rows]
    report: dict[str, Any] = {"frames": len(names), "sequences": len(length), "groups": len(set(groups))}
    intervals = bootstrap_intervals(summarize, groups, resamples=resamples)
    for key, number in summarize(np.arange(len(names))).items():
        interval = list(intervals[key]) if np.isfinite(intervals[key]).all() else None
        found = {"value": number, "interval": interval} if np.isfinite(number) else {"value": None}
        report.setdefault(key[0], {})[key[1]] = found | ({"defined": defined[key]} if key in defined else {})
    return report


def _best_mean(values: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], float]:
    """The largest column of the mean of rows ``(N, K)``, weighted and as often as drawn, without what is undefined."""
    weights = np.where(np.isnan(values[:, 0]), 0, weights)
    values = np.nan_to_num(values)

    def statistic(drawn: np.ndarray) -> float:
        total = drawn @ weights
        return float(((drawn * weights) @ values).max() / total) if total else float("nan")

    return statistic
