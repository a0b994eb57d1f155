# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from endofm_monai.visualize.figure import MAX_FRAMES, new_figure, pick_frames, rgb_frames, save_figure

__all__ = ["plot_views"]

TITLE = 0.26  # inches above a strip


def plot_views(views: Sequence[torch.Tensor], path: str | os.PathLike, num_global_views: int = 2) -> Figure:
    """Draw the views of one clip as film strips: what student and teacher are shown.

    A strip holds up to eight frames of a view, at equal distances from its first to its last. Global views take the
    whole width, local ones half of it.

    Args:
        views: views ``(3, T, S, S)`` of one clip, global ones first; uint8, or float32 normalized as for pre-training.
        path: the picture to write, for example a ``.png``.
        num_global_views: number of global views among them.

    Returns:
        the figure, as it is written.
    """
    global_rows, local_rows = num_global_views, -(-(len(views) - num_global_views) // 2)
    heights = [1 + TITLE] * global_rows + [0.5 + TITLE] * local_rows  # of 1 x 1 and 0.5 x 0.5 inch frames
    figure = new_figure(MAX_FRAMES, sum(heights))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for index, view in enumerate(views):
        local = index - num_global_views
        cell = grid[index, :] if local < 0 else grid[global_rows + local // 2, local % 2]
        axes = figure.add_subplot(cell, anchor="SW")
        axes.set_axis_off()
        name = f"Global view {index + 1}" if local < 0 else f"Local view {local + 1}"
        _, num_frames, height, width = view.shape
        shown = pick_frames(num_frames)
        length = f"{num_frames} frames" + (f" ({len(shown)} shown)" if len(shown) < num_frames else "")
        axes.set_title(f"{name}: {length}, {height}\u00d7{width} pixels", loc="left", fontsize=8, pad=3)
        axes.imshow(_strip(rgb_frames(view)[shown]))
    save_figure(figure, path)
    return figure


def _strip(frames: np.ndarray) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` side by side on white, with room for ``MAX_FRAMES``: ``(H, W', 3)``."""
    _, height, width, _ = frames.shape
    gap = width // 24
    strip = np.ones((height, MAX_FRAMES * (width + gap) - gap, 3))
    for index, frame in enumerate(frames):
        start = index * (width + gap)
        strip[:, start : start + width] = frame
    return strip
