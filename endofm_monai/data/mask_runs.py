# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.draw import polygon2mask
from skimage.measure import approximate_polygon, find_contours, label

__all__ = ["decode_runs", "draw_polygon", "encode_runs", "mask_from_points", "mask_points", "mask_polygons"]


def encode_runs(values: np.ndarray) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, 0 first, of a flat mask ``(N,)``."""
    flat = np.concatenate([[0], np.asarray(values) > 0]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges, [len(flat) - 1]])).tolist()


def decode_runs(runs: Sequence[int]) -> np.ndarray:
    """The flat bool mask ``(N,)`` of :func:`encode_runs`."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def mask_points(mask: np.ndarray) -> list[int]:
    """A mask as CVAT has it.

    Args:
        mask: ``(H, W)``, with some foreground.

    Returns:
        ``left, top, width, height`` of the smallest rectangle around it, and the runs of its rows.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [int(columns[0]), int(rows[0]), inner.shape[1], inner.shape[0], *encode_runs(inner.ravel())]


def mask_from_points(points: Sequence[int], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of :func:`mask_points`; what lies beyond the frame is cut off."""
    left, top, columns, rows = (int(value) for value in points[:4])
    inner = decode_runs([int(run) for run in points[4:]]).reshape(rows, columns)
    mask = np.zeros((max(height, top + rows), max(width, left + columns)), bool)
    mask[top : top + rows, left : left + columns] = inner
    return mask[:height, :width]


def draw_polygon(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of the pixels whose center is in a polygon.

    Args:
        points: ``x, y`` of each corner; pixel (0, 0) reaches from 0 to 1.
        height: rows of the frame.
        width: columns of the frame.
    """
    corners = np.reshape(np.asarray(points, dtype=float), (-1, 2))[:, ::-1]
    return polygon2mask((height, width), corners - 0.5)


def mask_polygons(mask: np.ndarray, tolerance: float = 0.0, min_area: int = 1) -> list[list[float]]:
    """Outlines of the separate regions of a mask; holes are filled.

    Args:
        mask: ``(H, W)``.
        tolerance: how far in pixels a simpler outline may be from the true one. With 0 :func:`draw_polygon` gives the
            mask again.
        min_area: smallest region in pixels.

    Returns:
        ``x1, y1, x2, y2, ...`` of each outline.
    """
    regions = label(np.pad(mask > 0, 1), connectivity=1)
    outlines = []
    for number in range(1, regions.max() + 1):
        region = regions == number
        if region.sum() < min_area:
            continue
        outline = max(find_contours(region.astype(float), 0.5), key=len)
        if tolerance:
            outline = approximate_polygon(outline, tolerance)
        if len(outline) > 3:  # the last point is the first one
            outlines.append((outline[:-1, ::-1] - 0.5).ravel().tolist())
    return outlines
