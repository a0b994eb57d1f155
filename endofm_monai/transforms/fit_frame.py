# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from monai.apps.detection.transforms.box_ops import flip_boxes, swapaxes_boxes, zoom_boxes
from monai.data.box_utils import clip_boxes_to_image
from monai.transforms import Transform
from monai.utils import ensure_tuple_rep
from torchvision.ops import box_area
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.base import RandClipTransform, RandClipTransformd

__all__ = ["FitClip", "FrameMap", "RandFitClip", "RandFitClipd", "move_boxes", "place"]

MIN_VISIBLE = 0.25  # share of a box's area that must stay in the frame


@dataclass(frozen=True)
class FrameMap:
    """How the pixels of a frame were moved: turned, zoomed, shifted, then mirrored within a new frame."""

    zoom: tuple[float, float]  # factors of x and y, after the turn
    shift: tuple[float, float]  # pixels to the right and down
    size: tuple[int, int]  # width and height of the new frame
    flips: tuple[int, ...] = ()  # axes along which it was mirrored: 0 for left to right, 1 for top to bottom
    swap_axes: bool = False  # whether rows became columns; with `flips`, all quarter turns can be had

    def apply(self, box: torch.Tensor) -> torch.Tensor:
        """Move boxes ``(N, 4)``, xyxy in pixels, with the frame; they may then lie beyond it."""
        return self._flip(zoom_boxes(self._turn(box), self.zoom) + box.new_tensor(self.shift * 2))

    def restore(self, box: torch.Tensor) -> torch.Tensor:
        """Move boxes back: the inverse of ``apply``."""
        box = self._flip(box) - box.new_tensor(self.shift * 2)
        return self._turn(zoom_boxes(box, (1 / self.zoom[0], 1 / self.zoom[1])))

    def _turn(self, box: torch.Tensor) -> torch.Tensor:
        return swapaxes_boxes(box, 0, 1) if self.swap_axes else box

    def _flip(self, box: torch.Tensor) -> torch.Tensor:
        return flip_boxes(box, self.size, self.flips)


class FitClip(Transform):
    """Resize the frames of a clip to fit a size, keeping the ratio of their sides, and pad them with black.

    The frame stays at the top left. Bilinear and antialiased. ``size`` is height and width, or one number for both.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = ensure_tuple_rep(size, 2)

    def frame_map(self, height: int, width: int) -> FrameMap:
        """How frames of a size are moved."""
        scale = min(self.size[0] / height, self.size[1] / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        return FrameMap((columns / width, rows / height), (0.0, 0.0), (self.size[1], self.size[0]))

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Resize and pad ``(..., T, H, W)``, uint8 or floating point; the type stays."""
        height, width = clip.shape[-2:]
        return place(clip, self.frame_map(height, width))


@dataclass(eq=False)
class RandFitClip(RandClipTransform):
    """Fit a clip as :class:`FitClip` does, but turned, stretched, zoomed, shifted and mirrored, alike in all frames.

    An endoscope has no upright: polyps that are wide in the videos of one hospital are tall in another's.
    """

    fit_transform: ClassVar[type[FitClip]] = FitClip
    map_type: ClassVar[type[FrameMap]] = FrameMap

    size: int | Sequence[int]  # height and width of the result in pixels, or one number for both
    zoom: tuple[float, float] = (0.75, 1.5)  # smallest and largest factor to the size that fits
    stretch: float = 1.0  # largest factor by which the ratio of the sides changes, to either direction
    turn_prob: float = 0.0  # probability of a quarter turn; with the flips, to the left or right
    flip_prob: float = 0.5  # probability that the clip is mirrored from left to right
    vertical_flip_prob: float = 0.5  # likewise from top to bottom

    def __post_init__(self) -> None:
        if self.stretch < 1:
            raise ValueError(f"`stretch` must be at least 1, found {self.stretch}.")
        self.fit = self.fit_transform(self.size)

    def randomize(self, data: torch.Tensor) -> None:
        swap_axes = self.R.uniform() < self.turn_prob
        height, width = reversed(data.shape[-2:]) if swap_axes else data.shape[-2:]
        fitting, factor = self.fit.frame_map(height, width), self.R.uniform(*self.zoom)
        stretch = math.exp(self.R.uniform(-math.log(self.stretch), math.log(self.stretch)) / 2)
        columns = max(1, round(width * fitting.zoom[0] * factor * stretch))
        rows = max(1, round(height * fitting.zoom[1] * factor / stretch))
        # the frame lies within the result where it is smaller, and covers it where it is larger
        sides = zip(fitting.size, (columns, rows), strict=True)
        left, top = (float(round(self.R.uniform() * (size - side))) for size, side in sides)
        flip_probs = (self.flip_prob, self.vertical_flip_prob)
        flips = tuple(axis for axis, prob in enumerate(flip_probs) if self.R.uniform() < prob)
        self.frame_map = self.map_type((columns / width, rows / height), (left, top), fitting.size, flips, swap_axes)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return place(clip, self.frame_map)


def place(clip: torch.Tensor, frame_map: FrameMap) -> torch.Tensor:
    """Move the pixels of a clip ``(..., T, H, W)``; what it does not cover is 0."""
    if frame_map.swap_axes:
        clip = clip.transpose(-2, -1)
    height, width = clip.shape[-2:]
    resized = [round(height * frame_map.zoom[1]), round(width * frame_map.zoom[0])]
    left, top = (-round(shift) for shift in frame_map.shift)
    clip = TF.crop(TF.resize(clip, resized, antialias=True), top, left, frame_map.size[1], frame_map.size[0])
    return clip.flip([-1 - axis for axis in frame_map.flips])


def move_boxes(
    box: torch.Tensor, label: torch.Tensor, frame_map: FrameMap, frame_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move boxes with their frame, of width and height ``frame_size``; those that lose most of their area go."""
    inside, kept = clip_boxes_to_image(box, frame_size)
    moved = frame_map.apply(inside)
    visible, _ = clip_boxes_to_image(moved, frame_map.size, remove_empty=False)
    enough = box_area(visible) >= MIN_VISIBLE * box_area(moved)
    return visible[enough], label[kept][enough]


class RandFitClipd(RandClipTransformd):
    """Dictionary version of :class:`RandFitClip`, for clips of one size and the boxes of their frames.

    The boxes at ``box``, a tensor ``(G, 4)`` for each frame, are clipped to the frame and moved with it. One of which
    less than a quarter stays visible goes, and with it its label, of the tensors ``(G,)`` at ``box_label``.
    """

    array_transform: ClassVar[type[Transform]] = RandFitClip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        height, width = data[self.keys[0]].shape[-2:]
        d = super().__call__(data)
        frames = zip(d["box"], d["box_label"], strict=True)
        moved = [move_boxes(box, label, self.transform.frame_map, (width, height)) for box, label in frames]
        d["box"], d["box_label"] = map(list, zip(*moved, strict=True))
        return d
