# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from endofm_monai.visualize.figure import new_figure, pick_frames, rgb_frames, save_figure

__all__ = ["attention_heat", "plot_attention", "show_heat"]


def attention_heat(attention: torch.Tensor, num_frames: int, height: int, width: int) -> np.ndarray:
    """Where the class token looks, as mean over the heads and in multiples of uniform attention.

    Args:
        attention: softmax weights ``(T, heads, 1 + N, 1 + N)`` over N patches in row-major order; row 0 is the class
            token's.
        num_frames: number T of frames.
        height: height of the frames in pixels.
        width: width of the frames in pixels.

    Returns:
        ``(T, rows, columns)``, a value a patch.

    Raises:
        ValueError: when the N patches do not tile the T frames.
    """
    tokens = attention.shape[-1]
    patch = max(math.isqrt(height * width // max(tokens - 1, 1)), 1)
    rows, columns = height // patch, width // patch
    if attention.shape[0] != num_frames or rows * columns != tokens - 1 or tokens == 1:
        raise ValueError(
            f"`attention` {tuple(attention.shape)} does not fit {num_frames} frames of {height}x{width} pixels."
        )
    relative = attention[:, :, 0, 1:].detach().float().cpu().mean(dim=1) * tokens  # (T, N)
    return relative.unflatten(1, (rows, columns)).numpy()


def show_heat(axes: Axes, heat: np.ndarray, scale: float, height: int, width: int) -> AxesImage:
    """Lay the heat map ``(rows, columns)`` of a frame of ``height`` x ``width`` pixels over its picture."""
    return axes.imshow(
        heat,
        cmap="inferno",
        alpha=0.8 * heat.clip(0, scale) / scale,
        vmin=0,
        vmax=scale,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )


def plot_attention(frames: torch.Tensor, attention: torch.Tensor, path: str | os.PathLike) -> Figure:
    """Draw where the class token looks: frames above, and below them their attention as a heat map.

    The attention of a patch is the mean over the heads, in multiples of what it would be if the class token looked
    at all tokens of the frame alike. All frames share one scale, which a few patches may exceed.

    Args:
        frames: one clip ``(3, T, H, W)``; uint8, or float32 normalized as for pre-training.
        attention: its softmax weights ``(T, heads, 1 + N, 1 + N)`` over N patches in row-major order, of
            :meth:`endofm_monai.networks.nets.EndoFM.attention_maps`; row 0 is the class token's.
        path: the picture to write, for example a ``.png``.

    Returns:
        the figure, as it is written.

    Raises:
        ValueError: when the N patches do not tile the T frames.
    """
    _, num_frames, height, width = frames.shape
    heat = attention_heat(attention, num_frames, height, width)

    shown = pick_frames(num_frames)
    # a few patches may exceed the scale, lest one hides the others; uniform attention shall not look like a peak
    scale = max(np.quantile(heat[shown], 0.995), 2.0)
    figure = new_figure(len(shown) + 0.6, 2 * height / width + 0.3)
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, (index, frame) in enumerate(zip(shown, rgb_frames(frames[:, shown]), strict=True)):
        for panel in axes[:, column]:
            panel.imshow(frame)
            panel.set_axis_off()
        axes[0, column].set_title(f"frame {index + 1}", fontsize=8, pad=3)
        overlay = show_heat(axes[1, column], heat[index], scale, height, width)
    bar = figure.colorbar(overlay, ax=axes[1], fraction=0.05, pad=0.01, extend="max")
    bar.ax.tick_params(labelsize=6)
    bar.set_label("attention / uniform", fontsize=7)
    save_figure(figure, path)
    return figure
