# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["clip_windows", "k_center", "select_frames"]

POOL = 4  # frames that diversity chooses from, for each one that is wanted, when uncertainty counts too


def select_frames(
    scores: npt.ArrayLike | None,
    embeddings: npt.ArrayLike | None,
    count: int,
    windows: Sequence[Hashable],
    labeled: Sequence[int] = (),
    seed: int = 0,
) -> list[int]:
    """Choose the frames to annotate next, at most one of a window of neighbors, which would tell the same.

    What is given decides how:

    * neither scores nor embeddings: at random, the baseline;
    * scores: the most uncertain frames;
    * embeddings: frames that differ most from the annotated ones and from each other (:func:`k_center`);
    * both: of the most uncertain frame of each window those that differ most, among four times as many as are wanted.

    Args:
        scores: uncertainty of each of N frames, ``(N,)``, see :mod:`endofm_monai.inferers.uncertainty`.
        embeddings: ``(N, D)``, for instance class tokens of the pre-trained backbone; compared by their angle.
        count: how many frames.
        windows: name of each frame's window, see :func:`clip_windows`.
        labeled: frames that have been annotated; no other frame of their windows is chosen.
        seed: seed of the draw, and of that among equal scores.

    Returns:
        indices of the frames, the most wanted first; fewer than ``count`` when no more windows are left.

    Raises:
        ValueError: when scores or embeddings are not finite or not one a frame, or ``labeled`` is no frame.

    Example::

        windows = clip_windows({"a.mp4": 300, "b.mp4": 120}, length=8)
        select_frames(mask_entropy(probability), class_tokens, 10, windows)
    """
    uncertainty = _rows("scores", scores, len(windows), 1)
    vectors = _rows("embeddings", embeddings, len(windows), 2)
    if strange := [index for index in labeled if not 0 <= index < len(windows)]:
        raise ValueError(f"`labeled` must hold indices from 0 to {len(windows) - 1}, but holds {strange[0]}.")
    done = {windows[index] for index in labeled}
    ties = np.random.default_rng(seed).random(len(windows))
    order = np.lexsort((ties,) if uncertainty is None else (ties, -uncertainty))
    free = [int(index) for index in order if windows[index] not in done]
    best: dict[Hashable, int] = {}  # frame of each window
    for index in free:
        best.setdefault(windows[index], index)
    if vectors is None:
        return list(best.values())[:count]
    candidates = free if uncertainty is None else list(best.values())[: POOL * count]
    return k_center(vectors, count, candidates, labeled, windows)


def k_center(
    embeddings: np.ndarray,
    count: int,
    candidates: Sequence[int],
    centers: Sequence[int] = (),
    windows: Sequence[Hashable] | None = None,
) -> list[int]:
    """Choose points that are far from all centers, one after the other, each becoming a center itself.

    The greedy solution of the k-center problem (Sener and Savarese, "Active Learning for Convolutional Neural Networks:
    A Core-Set Approach", ICLR 2018), at most twice as far from its points as the best one. With no center to begin with
    the first is the candidate next to the mean of all.

    Args:
        embeddings: ``(N, D)``; compared by the Euclidean distance after scaling to length 1.
        count: how many points.
        candidates: indices to choose from.
        centers: indices of the first centers.
        windows: name of each point's window, of which no more than one is chosen; by default each is alone.

    Returns:
        indices of the chosen points in their order; fewer than ``count`` when no more are left.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    points = embeddings / np.maximum(lengths, np.finfo(embeddings.dtype).tiny)
    numbers = {name: number for number, name in enumerate(windows or range(len(points)))}
    names = np.array([numbers[name] for name in windows or range(len(points))])
    left = np.asarray(candidates, dtype=int)
    distances = np.full(len(points), np.inf)
    for center in centers:
        distances = np.minimum(distances, np.linalg.norm(points - points[center], axis=1))
    if not len(centers) and len(left):
        distances = -np.linalg.norm(points - points[left].mean(axis=0), axis=1)
    chosen: list[int] = []
    while len(chosen) < count and len(left):
        new = int(left[distances[left].argmax()])
        reach = np.linalg.norm(points - points[new], axis=1)
        distances = reach if not chosen and not len(centers) else np.minimum(distances, reach)
        left = left[names[left] != names[new]]
        chosen.append(new)
    return chosen


def clip_windows(frames: dict[str, int], length: int) -> list[tuple[str, int]]:
    """Name the window of each frame of videos.

    Args:
        frames: number of frames of each video.
        length: frames of a window.

    Returns:
        video and number of the window, for all frames of the first video, then of the second, and so on.
    """
    return [(video, index // length) for video, number in frames.items() for index in range(number)]


def _rows(name: str, values: npt.ArrayLike | Iterable | None, number: int, ndim: int) -> np.ndarray | None:
    if values is None:
        return None
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != ndim or len(rows) != number:
        raise ValueError(
            f"`{name}` must have {ndim} dimension(s) and one row for each of {number} frames, found {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"`{name}` must be finite, but row {int(np.argwhere(~np.isfinite(rows))[0][0])} is not.")
    return rows
