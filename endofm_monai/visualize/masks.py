# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion

from endofm_monai.visualize.figure import new_figure, pick_frames, rgb_frames, save_figure

__all__ = ["overlay_mask", "plot_masks"]

TRUTH = (80, 220, 100)  # green
PREDICTION = (60, 160, 255)  # blue
EXCESS = (255, 90, 60)  # red
MISSED = (255, 210, 60)  # yellow


def overlay_mask(
    frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = PREDICTION, opacity: float = 0.35
) -> np.ndarray:
    """Lay a translucent mask with a solid contour over a frame.

    Args:
        frame: uint8 RGB ``(H, W, 3)``.
        mask: boolean or 0/1 ``(H, W)``.
        color: RGB of the mask.
        opacity: share of the color inside the contour, 0 to 1.

    Returns:
        uint8 RGB ``(H, W, 3)``; the frame stays as it is.

    Raises:
        ValueError: when frame and mask differ in size.
    """
    if frame.shape[:2] != mask.shape:
        raise ValueError(f"`frame` {frame.shape[:2]} and `mask` {mask.shape} must have the same size.")
    mask = mask.astype(bool)
    thickness = max(1, round(min(mask.shape) / 200))
    contour = mask & ~binary_erosion(mask, iterations=thickness)
    drawn = frame.astype(np.float32)
    drawn[mask] += opacity * (np.array(color, np.float32) - drawn[mask])
    drawn[contour] = color
    return drawn.round().astype(np.uint8)


def plot_masks(
    frames: torch.Tensor, prediction: torch.Tensor, truth: torch.Tensor | None, path: str | os.PathLike
) -> Figure:
    """Draw frames of a clip with, below each, its true mask, its predicted mask, and where the two differ.

    In the last row pixels that only the prediction has are red, those that only the truth has yellow.

    Args:
        frames: ``(3, T, H, W)``; uint8, or float32 normalized as for pre-training.
        prediction: boolean or 0/1 ``(T, H, W)``.
        truth: likewise, or None if it is unknown; then only the prediction is drawn.
        path: the picture to write, for example a ``.png``.

    Returns:
        the figure, as it is written.
    """
    shown = pick_frames(frames.shape[1])
    pictures = (rgb_frames(frames[:, shown]) * 255).round().astype(np.uint8)
    predicted = prediction[shown].cpu().numpy().astype(bool)
    rows = {"image": list(pictures)}
    if truth is not None:
        true = truth[shown].cpu().numpy().astype(bool)
        rows["truth"] = [overlay_mask(*pair, TRUTH) for pair in zip(pictures, true, strict=True)]
    rows["prediction"] = [overlay_mask(*pair, PREDICTION) for pair in zip(pictures, predicted, strict=True)]
    if truth is not None:
        rows["difference"] = [
            overlay_mask(overlay_mask(picture, p & ~t, EXCESS, 0.6), t & ~p, MISSED, 0.6)
            for picture, p, t in zip(pictures, predicted, true, strict=True)
        ]
    height, width = pictures.shape[1:3]
    figure = new_figure(len(shown) + 0.2, len(rows) * height / width + 0.2)
    axes = figure.subplots(len(rows), len(shown), squeeze=False)
    for panels, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(panels, images, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
        panels[0].set_ylabel(name, fontsize=7)
    for axis, index in zip(axes[0], shown, strict=True):
        axis.set_title(f"frame {index + 1}", fontsize=7, pad=2)
    save_figure(figure, path)
    return figure
