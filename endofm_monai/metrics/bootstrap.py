# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


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

    Args:
        statistics: computes the statistics, by name, of the items with these indices (int64, with repetitions); NaN
            where one is undefined, as the area under the ROC curve of items of one class.
        groups: ``(N,)``, the group of each item, of any type that can be compared.
        level: share of the resampled statistics that an interval holds, in (0, 1).
        resamples: number of times that the groups are drawn.
        seed: seed of the draws.

    Returns:
        by name the lower and the upper end, of those resamples for which it is defined; NaN when there are none.

    Example::

        >>> correct = np.array([1, 1, 0, 1])
        >>> bootstrap_intervals(lambda items: {"accuracy": correct[items].mean()}, groups=["a", "a", "b", "c"])
        {'accuracy': (0.0, 1.0)}
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"`level` must be in (0, 1) and `resamples` positive, but got {level} and {resamples}.")
    names, group_of_item = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) == 0:
        raise ValueError("A bootstrap interval needs at least one item.")
    items = [np.flatnonzero(group_of_item == group) for group in range(len(names))]
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    values = [statistics(np.concatenate([items[group] for group in draw])) for draw in draws]
    return {name: _interval(np.array([value[name] for value in values]), level) for name in values[0]}


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
