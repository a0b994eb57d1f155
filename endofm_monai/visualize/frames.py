# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion, find_objects
from torchvision.utils import draw_bounding_boxes

from endofm_monai.visualize.figure import new_figure, pick_frames, rgb_frames, save_figure

TRUTH = (80, 220, 100)  # green
PREDICTION = (60, 160, 255)  # blue
EXCESS = (255, 90, 60)  # red
MISSED = (255, 210, 60)  # yellow
COLORS = ((60, 160, 255), (255, 160, 60), (220, 90, 220), (250, 220, 60))  # of the classes, from 1 on


def draw_boxes(
    frame: np.ndarray, box: torch.Tensor, label: torch.Tensor, score: torch.Tensor, class_names: Sequence[str]
) -> np.ndarray:
    """Draw boxes with class and score on a frame.

    Args:
        frame: uint8 RGB ``(H, W, 3)``, which stays as it is.
        box: ``(D, 4)``, xyxy in pixels.
        label: classes ``(D,)``, from 1.
        score: scores ``(D,)``.
        class_names: names of the classes, from 1 on.
    """
    if len(box) == 0:
        return frame.copy()
    classes = [int(index) - 1 for index in label]
    texts = [f"{class_names[index]} {value:.2f}" for index, value in zip(classes, score, strict=True)]
    colors = [COLORS[index % len(COLORS)] for index in classes]
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    width = max(1, round(min(frame.shape[:2]) / 150))
    last = torch.maximum(box[:, 2:] - 1, box[:, :2])  # the last row and column of a box are inside it
    drawn = draw_bounding_boxes(image, torch.cat([box[:, :2], last], 1).clamp(min=0), texts, colors, width=width)
    return drawn.permute(1, 2, 0).numpy()


def overlay_mask(
    frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = PREDICTION, opacity: float = 0.35
) -> np.ndarray:
    """Lay a translucent mask with a solid contour over a frame.

    Args:
        frame: uint8 RGB ``(H, W, 3)``, which stays as it is.
        mask: boolean or 0/1 ``(H, W)``.
        color: RGB of the mask.
        opacity: share of the color inside the contour, 0 to 1.
    """
    if frame.shape[:2] != mask.shape:
        raise ValueError(f"`frame` {frame.shape[:2]} and `mask` {mask.shape} must have the same size.")
    drawn, thickness = frame.copy(), max(1, round(min(mask.shape) / 200))
    for place in find_objects((mask > 0).astype(np.uint8)):  # the rectangle around the mask, if it is not empty
        inside, region = mask[place] > 0, drawn[place].astype(np.float32)
        region[inside] += opacity * (np.array(color, np.float32) - region[inside])
        region[inside & ~binary_erosion(inside, iterations=thickness)] = color
        drawn[place] = region.round()
    return drawn


def plot_masks(
    frames: torch.Tensor,
    prediction: torch.Tensor,
    truth: torch.Tensor,
    path: str | os.PathLike,
    numbers: Sequence[int] | None = None,
) -> Figure:
    """Draw frames of a clip with, below each, its true mask, its predicted mask, and where the two differ.

    In the last row pixels that only the prediction has are red, those that only the truth has yellow.

    Args:
        frames: ``(3, T, H, W)``; uint8, or float32 normalized as for pre-training.
        prediction: boolean or 0/1 ``(T, H, W)``.
        truth: likewise.
        path: the picture to write.
        numbers: those of the frames in their video, from 0, if they are not all of it.
    """
    shown = pick_frames(frames.shape[1])
    numbers = range(frames.shape[1]) if numbers is None else numbers
    pictures = (rgb_frames(frames[:, shown]) * 255).round().astype(np.uint8)
    predicted, true = (masks[shown].cpu().numpy().astype(bool) for masks in (prediction, truth))
    names = ("image", "truth", "prediction", "difference")
    height, width = pictures.shape[1:3]
    figure = new_figure(len(shown) + 0.2, len(names) * height / width + 0.2)
    axes = figure.subplots(len(names), len(shown), squeeze=False)
    for column, index, image, found, wanted in zip(axes.T, shown, pictures, predicted, true, strict=True):
        excess = overlay_mask(image, found & ~wanted, EXCESS, 0.6)
        difference = overlay_mask(excess, wanted & ~found, MISSED, 0.6)
        drawn = (image, overlay_mask(image, wanted, TRUTH), overlay_mask(image, found), difference)
        for axis, picture in zip(column, drawn, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        column[0].set_title(f"frame {numbers[index] + 1}", fontsize=7, pad=2)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=7)
    return save_figure(figure, path)
