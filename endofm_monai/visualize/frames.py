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
    frame: np.ndarray,
    box: torch.Tensor,
    label: torch.Tensor,
    score: torch.Tensor | None = None,
    class_names: Sequence[str] = ("polyp",),
) -> np.ndarray:
    """Draw boxes with class and score on a frame.

    Args:
        frame: uint8 RGB ``(H, W, 3)``, which stays as it is.
        box: ``(D, 4)``, xyxy in pixels.
        label: classes ``(D,)``, from 1.
        score: scores ``(D,)``; without them the boxes are drawn as true ones, in green.
        class_names: names of the classes, from 1 on.
    """
    if len(box) == 0:
        return frame.copy()
    names = [class_names[int(index) - 1] for index in label]
    texts = names if score is None else [f"{name} {value:.2f}" for name, value in zip(names, score, strict=True)]
    colors = [TRUTH if score is None else COLORS[(int(index) - 1) % len(COLORS)] for index in label]
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
    truth: torch.Tensor | None,
    path: str | os.PathLike,
    numbers: Sequence[int] | None = None,
) -> Figure:
    """Draw frames of a clip with, below each, its true mask, its predicted mask, and where the two differ.

    In the last row pixels that only the prediction has are red, those that only the truth has yellow.

    Args:
        frames: ``(3, T, H, W)``; uint8, or float32 normalized as for pre-training.
        prediction: boolean or 0/1 ``(T, H, W)``.
        truth: likewise, or None if it is unknown; then only the prediction is drawn.
        path: the picture to write.
        numbers: those of the frames in their video, from 0, if they are not all of it.
    """
    shown = pick_frames(frames.shape[1])
    numbers = range(frames.shape[1]) if numbers is None else numbers
    pictures = (rgb_frames(frames[:, shown]) * 255).round().astype(np.uint8)
    predicted = prediction[shown].cpu().numpy().astype(bool)
    rows = {"image": list(pictures)}
    rows["prediction"] = [overlay_mask(*pair) for pair in zip(pictures, predicted, strict=True)]
    if truth is not None:
        triples = list(zip(pictures, predicted, truth[shown].cpu().numpy().astype(bool), strict=True))
        rows = {"image": rows["image"], "truth": [overlay_mask(p, t, TRUTH) for p, _, t in triples], **rows}
        rows["difference"] = [
            overlay_mask(overlay_mask(picture, found & ~true, EXCESS, 0.6), true & ~found, MISSED, 0.6)
            for picture, found, true in triples
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
        axis.set_title(f"frame {numbers[index] + 1}", fontsize=7, pad=2)
    return save_figure(figure, path)
