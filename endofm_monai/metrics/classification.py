# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def classification_scores(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Scores of predicted class probabilities; those that need a decision take it by :func:`decide`.

    Args:
        probabilities: ``(N, C)`` in 0..1.
        labels: class indices ``(N,)``; or ``(N, C)`` 0 or 1, where classes do not exclude each other.

    Returns:
        ``accuracy`` (of several labels: all must be right), ``macro_f1``, ``macro_precision``, ``macro_recall``,
        ``roc_auc``, ``average_precision``, ``calibration_error`` (:func:`calibration_error`); and for two classes
        ``f1``, ``precision`` and ``recall`` of class 1. Macro scores are the mean over the classes for which they are
        defined; the areas of more than two classes are the mean of those of one class against the rest. A score that
        the labels leave undefined, as the areas when all items are of one class, is NaN; the precision of a class
        that items have and that is never predicted is 0.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    classes, multi_label = probabilities.shape[1], labels.ndim == 2
    is_binary = classes == 2 and not multi_label
    truth, decided = labels_to_one_hot(labels, classes), decide(probabilities, multi_label)
    right, actual, predicted = (truth & decided).sum(axis=0), truth.sum(axis=0), decided.sum(axis=0)
    with np.errstate(invalid="ignore"):
        by_class = {
            "f1": 2 * right / (actual + predicted),
            "precision": right / np.maximum(predicted, actual > 0),
            "recall": right / actual,
        }
    areas = [_areas(truth[:, c], probabilities[:, c]) for c in ([1] if is_binary else range(classes))]
    roc_auc, average_precision = map(mean_of_defined, np.array(areas).T)
    scores = {
        "accuracy": (truth == decided).all(axis=1).mean(),
        **({name: values[1] for name, values in by_class.items()} if is_binary else {}),
        **{f"macro_{name}": mean_of_defined(values) for name, values in by_class.items()},
        "roc_auc": roc_auc,
        "average_precision": average_precision,
        "calibration_error": calibration_error(probabilities, labels),
    }
    return {name: float(value) for name, value in scores.items()}


def decide(probabilities: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Binary predictions ``(N, C)``: the likeliest class of each item, or with ``multi_label`` all above 0.5."""
    if multi_label:
        return (probabilities > 0.5).astype(int)
    return labels_to_one_hot(probabilities.argmax(axis=1), probabilities.shape[1])


def labels_to_one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels ``(N, C)`` of class indices ``(N,)``; what is ``(N, C)`` already stays."""
    return np.eye(num_classes, dtype=int)[labels] if labels.ndim == 1 else labels.astype(int)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, in 0..1: how far confidence is from accuracy (Guo et al., ICML 2017, section 2).

    It is the mean over all items of the distance between the accuracy and the mean confidence of their bin, of equally
    wide ones. The confidence is the probability of the likeliest class; of classes that do not exclude each other every
    decision, for or against one, counts on its own. Arguments are those of :func:`classification_scores`.
    """
    if labels.ndim == 2:
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        correct = (decide(probabilities, multi_label=True) == labels).ravel()
    else:
        confidence = probabilities.max(axis=1)
        correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def bootstrap_intervals(
    statistics: Callable[[np.ndarray], dict[Any, float]],
    groups: ArrayLike,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[Any, tuple[float, float]]:
    """Percentile intervals of statistics when whole groups of items are drawn with replacement.

    Clips or frames of one video resemble each other: drawing them one by one would give an interval that is too
    narrow. So videos (or sequences, or patients) are drawn, each with all of its items (the cluster bootstrap;
    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).

    The ``statistics`` take indices of items (int64, with repetitions) and give numbers by name, NaN where one is
    undefined. The ``groups`` ``(N,)`` are of any type that can be compared, and ``level`` is the share of the resampled
    numbers that an interval holds, in (0, 1).

    Returns:
        by name the lower and the upper end, of those resamples for which it is defined; NaN when there are none, and
        of a single group, which says nothing of others.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"`level` must be in (0, 1) and `resamples` positive, but got {level} and {resamples}.")
    names, group_of_item = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) == 0:
        raise ValueError("A bootstrap interval needs at least one item.")
    items = [np.flatnonzero(group_of_item == group) for group in range(len(names))]
    if len(names) == 1:
        return dict.fromkeys(statistics(items[0]), (float("nan"), float("nan")))
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    values = [statistics(np.concatenate([items[group] for group in draw])) for draw in draws]
    return {name: _interval(np.array([value[name] for value in values]), level) for name in values[0]}


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    low, high = np.quantile(defined if len(defined) else np.nan, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _areas(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """``roc_auc_score`` and ``average_precision_score`` of scikit-learn, fast enough for a bootstrap."""
    if not 0 < truth.mean() < 1:
        return float("nan"), float("nan")
    order = np.argsort(-probabilities, kind="stable")
    last = np.flatnonzero(np.diff(probabilities[order], append=np.nan) != 0)  # of the items of one probability
    hits = truth[order].cumsum()[last]
    recall, false_alarms = hits / hits[-1], (last + 1 - hits) / (len(truth) - hits[-1])
    gained = np.diff(recall, prepend=0)
    roc_auc = (np.diff(false_alarms, prepend=0) * (recall - gained / 2)).sum()
    return float(roc_auc), float((gained * hits / (last + 1)).sum())


def mean_of_defined(values: np.ndarray) -> Any:
    """Mean along the first axis of what is no NaN; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=0) / (~np.isnan(values)).sum(axis=0)
