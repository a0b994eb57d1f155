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


def plot_views(views: Sequence[torch.Tensor], path: str | os.PathLike, num_global_views: int = 2) -> Figure:
    """Draw the views of one clip as strips of frames, to see what student and teacher are shown.

    Row by row a view, column by column up to eight of its frames, at equal distances from the first to the last.
    Local views are drawn smaller, in two columns if each fits.

    Args:
        views: views ``(3, T, S, S)`` of one clip, global ones first; uint8, or float32 normalized as for pre-training.
        path: the picture to write, for example a ``.png``.
        num_global_views: number of global views among them.

    Returns:
        the figure, as written to ``path``.
    """
    cells = [min(view.shape[1], MAX_FRAMES) for view in views]
    sides = [1.0 if index < num_global_views else 0.62 for index in range(len(views))]  # inches
    figure = new_figure(0.2 + MAX_FRAMES * max(sides), sum(sides) + 0.22 * len(views))
    rows = figure.subplots(len(views), 1, squeeze=False, height_ratios=[side + 0.22 for side in sides])[:, 0]
    for index, (axes, view) in enumerate(zip(rows, views, strict=True)):
        is_global = index < num_global_views
        number = index + 1 if is_global else index + 1 - num_global_views
        _, num_frames, height, width = view.shape
        axes.set_title(
            f"{'Global' if is_global else 'Local'} view {number}: {num_frames} frames, {height} \u00d7 {width} pixels",
            loc="left",
            fontsize=8,
        )
        strip = _strip(rgb_frames(view)[pick_frames(num_frames)], MAX_FRAMES if is_global else cells[index])
        axes.imshow(strip)
        axes.set_anchor("W")
        axes.set_axis_off()
    save_figure(figure, path)
    return figure
