# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from endofm_monai.visualize.attention import attention_heat, show_heat
from endofm_monai.visualize.figure import new_figure, rgb_frames, save_figure

__all__ = ["KeyFrame", "plot_timeline"]


class KeyFrame(NamedTuple):
    """A frame to show: when it is in the video, its pixels, and the attention in it."""

    seconds: float
    frame: torch.Tensor  # (3, H, W), uint8, or normalized as for pre-training
    attention: torch.Tensor  # (heads, 1 + N, 1 + N)


def plot_timeline(
    spans: Sequence[tuple[float, float]],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    key_frames: Sequence[KeyFrame],
    title: str,
    path: str | os.PathLike,
) -> Figure:
    """Draw what a video shows when: class probabilities over time, and below them key frames.

    Key frames are marked in the curves, and drawn as they are and with the attention of the class token over them, in
    multiples of uniform attention.

    Args:
        spans: beginning and end of each of N windows in seconds, in order.
        probabilities: ``(N, C)``.
        class_names: names of the C classes.
        key_frames: frames to draw, at least one.
        title: title of the picture.
        path: the picture to write, for example a ``.png``.

    Returns:
        the figure, as it is written.
    """
    figure = new_figure(7.0, 5.6)
    columns = max(len(key_frames), 3)
    grid = figure.add_gridspec(3, columns, height_ratios=[1.1, 1, 1])
    curves = figure.add_subplot(grid[0, :])
    edges = [spans[0][0], *(begin for begin, _ in spans[1:]), spans[-1][1]]  # a later window wins where two overlap
    for name, values in zip(class_names, probabilities.T, strict=True):
        curves.stairs(values, edges, baseline=None, label=name, linewidth=1.5)
    for key_frame in key_frames:
        curves.axvline(key_frame.seconds, color="0.6", linewidth=0.8, linestyle=":")
    curves.set(ylim=(-0.03, 1.03), xlim=(edges[0], max(edges[-1], edges[0] + 1e-3)))
    curves.set_xlabel("seconds", fontsize=7)
    curves.set_ylabel("probability", fontsize=7)
    curves.set_title(title, fontsize=8, loc="left")
    curves.tick_params(labelsize=7)
    curves.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    for column, (seconds, frame, attention) in enumerate(key_frames):
        height, width = frame.shape[1:]
        heat = attention_heat(attention[None], 1, height, width)[0]
        pair = [figure.add_subplot(grid[row, column]) for row in (1, 2)]
        for axes in pair:
            axes.imshow(rgb_frames(frame[:, None])[0])
            axes.set_axis_off()
        pair[0].set_title(f"{seconds:.1f} s", fontsize=8, pad=3)
        show_heat(pair[1], heat, max(float(np.quantile(heat, 0.995)), 2.0), height, width)
    save_figure(figure, path)
    return figure
