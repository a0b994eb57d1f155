# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance

from endofm_monai.metrics.bootstrap import bootstrap_interval
from endofm_monai.metrics.saliency import enhanced_alignment, structure_measure, weighted_f_measure

__all__ = ["SegmentationScores", "frame_scores"]

COUNTS = ("true_positive", "false_positive", "false_negative")
OVERLAPS = ("dice", "iou", "precision", "recall")
SCORES = (*OVERLAPS, "hd95", "weighted_f", "s_measure", "mae")


def frame_scores(prediction: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Scores of one frame, as the polyp field reports them, at the size of the frame.

    =============================== ===================== ================== ==================
    score                           both masks empty      only truth empty   only prediction empty
    =============================== ===================== ================== ==================
    dice, iou                       1                     0                  0
    precision                       NaN                   0                  NaN
    recall                          NaN                   NaN                0
    hd95                            0                     NaN                NaN
    weighted_f                      NaN                   NaN                as defined
    =============================== ===================== ================== ==================

    NaN means undefined; means leave it out and say over how many frames they are taken.

    Args:
        prediction: boolean ``(H, W)``.
        probability: probability of the foreground ``(H, W)``, of which ``weighted_f``, ``s_measure`` and ``mae`` are
            taken.
        truth: boolean ``(H, W)``.

    Returns:
        the scores above, ``s_measure`` and ``mae`` (mean absolute error), and the counts of pixels
        ``true_positive``, ``false_positive``, ``false_negative``. ``hd95`` is in pixels: the larger of the two
        95th percentiles of distances from one contour to the other.
    """
    hits, predicted, positive = (int(np.count_nonzero(mask)) for mask in (prediction & truth, prediction, truth))
    distance = 0.0 if predicted == positive == 0 else float("nan")
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
    }


def _overlap(hits: float, predicted: float, positive: float) -> dict[str, float]:
    """Dice, IoU, precision and recall of numbers of pixels."""
    nan = float("nan")
    return {
        "dice": 2 * hits / (predicted + positive) if predicted + positive else 1.0,
        "iou": hits / (predicted + positive - hits) if predicted + positive else 1.0,
        "precision": hits / predicted if predicted else nan,
        "recall": hits / positive if positive else nan,
    }


class SegmentationScores:
    """Collects the scores of frames, and sums them up for frames, sequences and pixels, with intervals.

    * ``per_frame``: mean over all frames;
    * ``per_sequence``: mean over sequences of the mean over their frames, so that long ones count no more;
    * ``pooled``: from the pixels of all frames taken together.

    Neighboring frames are alike, so the bootstrap intervals draw whole sequences, each with all of its clips.
    ``e_measure`` is the E-measure at the threshold that is best on average, as usual in the field.

    Args:
        rows: ``rows`` of others to go on from, perhaps of other processes.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)

    def add(
        self,
        clip: str,
        prediction: torch.Tensor,
        probability: torch.Tensor,
        truth: torch.Tensor,
        sequence: str | None = None,
    ) -> None:
        """Score the frames of a clip.

        Args:
            clip: its name.
            prediction: 0/1 masks ``(T, H, W)``.
            probability: probabilities of the foreground ``(T, H, W)``.
            truth: 0/1 masks ``(T, H, W)``.
            sequence: what the clip is a part of; by default it is one of its own.
        """
        names = {"sequence": clip if sequence is None else sequence, "clip": clip}
        arrays = (prediction.cpu().numpy() > 0, probability.double().cpu().numpy(), truth.cpu().numpy() > 0)
        for frame, (predicted, map_, true) in enumerate(zip(*arrays, strict=True)):
            scores = frame_scores(predicted, map_, true)
            self.rows.append({**names, "frame": frame, **scores, "alignment": enhanced_alignment(map_, true)})

    def report(self, level: float = 0.95, resamples: int = 1000) -> dict[str, Any]:
        """Sum up.

        Args:
            level: share of the intervals.
            resamples: draws of the bootstrap.

        Returns:
            number of ``frames`` and ``sequences``, and the summaries ``per_frame``, ``per_sequence`` and ``pooled``,
            each a mapping from score to ``value`` (None where no frame defines it), ``interval`` and, where some are
            left out, how many are ``defined``.

        Raises:
            ValueError: when no frame was added.
        """
        if not self.rows:
            raise ValueError("No frame was scored.")
        names = np.array([row["sequence"] for row in self.rows])
        _, sequence, length = np.unique(names, return_inverse=True, return_counts=True)
        values = {name: np.array([row[name] for row in self.rows], np.float64)[:, None] for name in SCORES}
        values["e_measure"] = np.stack([row["alignment"] for row in self.rows])
        counts = np.array([[row[name] for name in COUNTS] for row in self.rows], np.float64)

        def summarize(statistic: Callable[[np.ndarray], float]) -> dict[str, Any]:
            value, interval = statistic(np.arange(len(names))), bootstrap_interval(statistic, names, level, resamples)
            return {"value": value, "interval": list(interval)} if np.isfinite(value) else {"value": None}

        report: dict[str, Any] = {"frames": len(names), "sequences": len(length), "per_frame": {}, "per_sequence": {}}
        for name, value in values.items():
            report["per_frame"][name] = summarize(_best_mean(value, np.ones(len(names))))
            sequence_means = np.stack([_mean(value[sequence == index]) for index in range(len(length))])
            report["per_sequence"][name] = summarize(_best_mean(sequence_means[sequence], 1 / length[sequence]))
            if np.isnan(value).any():
                report["per_frame"][name]["defined"] = int(np.isfinite(value).sum())
                report["per_sequence"][name]["defined"] = int(np.isfinite(sequence_means).sum())
        report["pooled"] = {name: summarize(_pooled(counts, name)) for name in OVERLAPS}
        return report


def _pooled(counts: np.ndarray, name: str) -> Callable[[np.ndarray], float]:
    """A score of the pixels of rows of ``COUNTS`` taken together."""

    def statistic(items: np.ndarray) -> float:
        hits, excess, missed = counts[items].sum(axis=0)
        return _overlap(hits, hits + excess, hits + missed)[name]

    return statistic


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean of the rows that are defined; NaN if none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0)


def _best_mean(values: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], float]:
    """The largest column of the weighted mean of rows ``(N, K)``, leaving out what is undefined."""
    weights = np.where(np.isnan(values[:, 0]), 0, weights)
    values = np.nan_to_num(values)

    def statistic(items: np.ndarray) -> float:
        total = weights[items].sum()
        return float((weights[items] @ values[items]).max() / total) if total else float("nan")

    return statistic
