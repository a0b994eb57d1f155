# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from scipy.ndimage import binary_erosion, find_objects
from torchvision.utils import draw_bounding_boxes

from endofm_monai.transforms.color import PRETRAINING_MEAN, PRETRAINING_STD
from endofm_monai.utils import PathLike, atomic_path

MAX_FRAMES = 8  # of a clip that a picture shows
TITLE = 0.26  # inches above a strip
TRUTH = (80, 220, 100)  # green
PREDICTION = (60, 160, 255)  # blue
EXCESS = (255, 90, 60)  # red
MISSED = (255, 210, 60)  # yellow
COLORS = ((60, 160, 255), (255, 160, 60), (220, 90, 220), (250, 220, 60))  # of the classes, from 1 on


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` x ``height`` inches that is drawn off screen and unknown to ``matplotlib.pyplot``."""
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return Figure(figsize=(width, height), dpi=200, layout=tight)


def save_figure(figure: Figure, path: PathLike) -> Figure:
    """Write the figure to ``path``, in the format of its suffix, atomically."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names may hold dollars
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return figure


def pick_frames(num_frames: int) -> list[int]:
    """The frames of a clip that a picture shows: all, or ``MAX_FRAMES`` at equal distances with the first and last."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()


def rgb_frames(clip: torch.Tensor) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` in [0, 1] of a clip ``(3, T, H, W)``: uint8 RGB, or normalized as for pre-training."""
    frames = clip.detach().cpu().permute(1, 2, 3, 0)
    if frames.dtype == torch.uint8:
        return frames.numpy() / 255
    mean, std = torch.tensor(PRETRAINING_MEAN), torch.tensor(PRETRAINING_STD)
    return (frames.float() * std + mean).clamp(0, 1).numpy()


def plot_views(views: Sequence[torch.Tensor], path: PathLike, num_global_views: int = 2) -> Figure:
    """Draw the views of one clip as film strips: what student and teacher are shown.

    A strip holds up to eight frames of a view ``(3, T, S, S)``, at equal distances from its first to its last. Global
    views come first and take the whole width, local ones half of it.
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
    return save_figure(figure, path)


def _strip(frames: np.ndarray) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` side by side on white, with room for ``MAX_FRAMES``: ``(H, W', 3)``."""
    gap = frames.shape[2] // 24
    padded = np.pad(frames, [(0, MAX_FRAMES - len(frames)), (0, 0), (0, gap), (0, 0)], constant_values=1)
    strip = np.concatenate(padded, axis=1)
    return strip[:, : strip.shape[1] - gap]


def attention_heat(attention: torch.Tensor, frames: torch.Tensor) -> np.ndarray:
    """Where the class token looks, a value a patch ``(T, rows, columns)``, in multiples of uniform attention.

    The ``attention`` in frames ``(3, T, H, W)`` is ``(T, heads, 1 + N, 1 + N)``, of
    :meth:`endofm_monai.networks.nets.EndoFM.attention_maps`; the heads' mean is taken.
    """
    _, num_frames, height, width = frames.shape
    tokens = attention.shape[-1]
    patch = max(math.isqrt(height * width // max(tokens - 1, 1)), 1)
    rows, columns = height // patch, width // patch
    if attention.shape[0] != num_frames or rows * columns != tokens - 1 or tokens == 1:
        given = f"{num_frames} frames of {height}x{width} pixels"
        raise ValueError(f"`attention` {tuple(attention.shape)} does not fit {given}.")
    relative = attention[:, :, 0, 1:].detach().float().cpu().mean(dim=1) * tokens  # (T, N)
    return relative.unflatten(1, (rows, columns)).numpy()


def show_heat(plain: Axes, heated: Axes, frame: np.ndarray, heat: np.ndarray, maps: np.ndarray) -> AxesImage:
    """Show a frame ``(H, W, 3)``, and again under its heat map ``(rows, columns)``; all ``maps`` share one scale."""
    scale = max(float(np.quantile(maps, 0.995)), 2.0)  # few patches exceed it, and uniform attention is no peak
    for axes in (plain, heated):
        axes.imshow(frame)
        axes.set_axis_off()
    height, width = frame.shape[:2]
    extent, alpha = (-0.5, width - 0.5, height - 0.5, -0.5), 0.8 * heat.clip(0, scale) / scale
    return heated.imshow(heat, "inferno", alpha=alpha, vmin=0, vmax=scale, extent=extent, interpolation="bilinear")


def plot_attention(frames: torch.Tensor, attention: torch.Tensor, path: PathLike) -> Figure:
    """Draw where the class token looks: frames above, and below them their :func:`attention_heat`.

    All frames share one scale, which a few patches may exceed.
    """
    heat, shown = attention_heat(attention, frames), pick_frames(frames.shape[1])
    figure = new_figure(len(shown) + 0.6, 2 * frames.shape[2] / frames.shape[3] + 0.3)
    axes = figure.subplots(2, len(shown), squeeze=False)
    for (plain, heated), index, frame in zip(axes.T, shown, rgb_frames(frames[:, shown]), strict=True):
        overlay = show_heat(plain, heated, frame, heat[index], heat[shown])
        plain.set_title(f"frame {index}", fontsize=8, pad=3)
    bar = figure.colorbar(overlay, ax=axes[1], fraction=0.05, pad=0.01, extend="max")
    bar.ax.tick_params(labelsize=6)
    bar.set_label("attention / uniform", fontsize=7)
    return save_figure(figure, path)


def draw_boxes(
    frame: np.ndarray, box: torch.Tensor, label: torch.Tensor, score: torch.Tensor, class_names: Sequence[str]
) -> np.ndarray:
    """Draw boxes ``(D, 4)``, xyxy, with class (from 1) and score on a copy of a frame, uint8 RGB ``(H, W, 3)``."""
    if len(box) == 0:
        return frame.copy()
    classes = (label - 1).tolist()
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
    """Lay a mask ``(H, W)`` with a solid contour over a copy of a frame, uint8 RGB ``(H, W, 3)``.

    Inside, ``opacity`` is the share of the color, from 0 to 1.
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
    frames: torch.Tensor, prediction: torch.Tensor, truth: torch.Tensor, path: PathLike, numbers: Sequence[int]
) -> Figure:
    """Draw frames ``(3, T, H, W)`` with, below each, its true mask, its predicted mask, and where the two differ.

    In the last row pixels that only the prediction ``(T, H, W)`` has are red, those that only the truth has yellow.
    ``numbers`` are those of the frames in their video, from 0.
    """
    pictures = (rgb_frames(frames) * 255).round().astype(np.uint8)
    predicted, true = (masks.cpu().numpy().astype(bool) for masks in (prediction, truth))
    names = ("image", "truth", "prediction", "difference")
    height, width = pictures.shape[1:3]
    figure = new_figure(len(numbers) + 0.2, len(names) * height / width + 0.2)
    axes = figure.subplots(len(names), len(numbers), squeeze=False)
    for column, number, image, found, wanted in zip(axes.T, numbers, pictures, predicted, true, strict=True):
        excess = overlay_mask(image, found & ~wanted, EXCESS, 0.6)
        difference = overlay_mask(excess, wanted & ~found, MISSED, 0.6)
        drawn = (image, overlay_mask(image, wanted, TRUTH), overlay_mask(image, found), difference)
        for axis, picture in zip(column, drawn, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        column[0].set_title(f"frame {number}", fontsize=7, pad=2)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=7)
    return save_figure(figure, path)
