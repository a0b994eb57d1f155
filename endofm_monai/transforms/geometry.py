# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import Transform
from monai.utils import ensure_tuple, ensure_tuple_rep
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.base import (
    ClipTransformd,
    RandClipTransform,
    RandClipTransformd,
    dictionary_version,
    to_float,
)

__all__ = [
    "RandAffineClip", "RandAffineClipd", "RandFlipClip", "RandFlipClipd", "RandResizedCropClip",
    "RandResizedCropClipd", "RandScaleCropClip", "RandScaleCropClipd", "ResizeClip", "ResizeClipd", "ScaleCropClip",
    "ScaleCropClipd",
]  # fmt: skip

Range = tuple[float, float]  # smallest and largest
Box = tuple[int, int, int, int]  # top, left, height and width in pixels


@dataclass(eq=False)
class RandFlipClip(RandClipTransform):
    """Mirror a clip from left to right."""

    prob: float = 0.5

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return to_float(clip).flip(-1)


class ResizeClip(Transform):
    """Resize the frames of a clip so that the short side has the length ``size``, or to a height and width.

    Bilinear and antialiased; with one length the ratio of the sides is kept.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = list(ensure_tuple(size))

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Resize ``(..., T, H, W)``, uint8 or floating point; the type stays."""
        return TF.resize(clip, self.size, antialias=True)


def resize_to_square(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Resize all frames of a clip ``(C, T, H, W)`` to a square of ``size`` pixels, bicubically and antialiased.

    The overshoot of the bicubic kernel is clipped to ``[0, 1]``.
    """
    return interpolate_to_square(to_float(clip), size).clamp_(0, 1)


def interpolate_to_square(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Resize a floating-point clip of any range to a square, bicubically."""
    # antialiased, because specular highlights and vessels flicker otherwise
    return F.interpolate(clip, (size, size), mode="bicubic", align_corners=False, antialias=True)


def draw_box(frame_size: Sequence[int], scale: Range, ratio: Range, random: np.random.RandomState) -> tuple[int, int]:
    """Draw height and width of a box whose share of the frame is uniform in ``scale``, its ratio log-uniform."""
    area = frame_size[0] * frame_size[1] * random.uniform(*scale)
    aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))


def central_box(frame_size: Sequence[int], ratio: Range) -> Box:
    """The largest box in the center of a frame with an allowed ratio."""
    height, width = frame_size
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def draw_crop(frame_size: Sequence[int], scale: Range, ratio: Range, random: np.random.RandomState) -> Box:
    """Draw a box inside a frame of height and width ``frame_size``.

    Ten tries are made to fit in one of :func:`draw_box`; after them comes that of :func:`central_box`.
    """
    for _ in range(10):
        height, width = draw_box(frame_size, scale, ratio, random)
        if height <= frame_size[0] and width <= frame_size[1]:
            return random.randint(frame_size[0] - height + 1), random.randint(frame_size[1] - width + 1), height, width
    return central_box(frame_size, ratio)


@dataclass(eq=False)
class RandResizedCropClip(RandClipTransform):
    """Cut a random box out of a clip, the same from all frames, and resize it to a square."""

    size: int  # height and width of the result in pixels
    scale: Range = (0.4, 1.0)  # share of the frame's area in the box
    ratio: Range = (3 / 4, 4 / 3)  # of the box's width to its height

    def randomize(self, data: torch.Tensor) -> None:
        self.box = draw_crop(data.shape[-2:], self.scale, self.ratio, self.R)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return resize_to_square(self.cut(clip), self.size)

    def cut(self, clip: torch.Tensor) -> torch.Tensor:
        """Cut without resizing."""
        top, left, height, width = self.box
        return clip[..., top : top + height, left : left + width]


@dataclass(eq=False)
class RandScaleCropClip(RandClipTransform):
    """Resize a clip to a random ``short_side`` in pixels and cut a random square out, as published for fine-tuning."""

    size: int = 224
    short_side: tuple[int, int] = (256, 320)

    def __post_init__(self) -> None:
        if not self.size <= self.short_side[0] <= self.short_side[1]:
            raise ValueError(f"`short_side` must rise from `size`={self.size} on, found {self.short_side}.")

    def randomize(self, data: torch.Tensor) -> None:
        """Draw the size, and the corner as shares of the room that is left."""
        self.length = round(self.R.uniform(*self.short_side))
        self.corner = self.R.uniform(size=2)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        clip = TF.resize(to_float(clip), [self.length])
        room = [side - self.size + 1 for side in clip.shape[-2:]]
        top, left = (int(share * length) for share, length in zip(self.corner, room, strict=True))
        return clip[..., top : top + self.size, left : left + self.size]


@dataclass(eq=False)
class ScaleCropClip(Transform):
    """Resize a clip to ``short_side`` and cut one of several squares of ``size`` pixels out of it.

    They are evenly spread along the long side; the ratio of the sides is kept.
    """

    size: int = 224
    short_side: int = 256

    def __post_init__(self) -> None:
        if self.short_side < self.size:
            raise ValueError(f"`short_side` must be at least `size`={self.size}, found {self.short_side}.")

    def __call__(self, clip: torch.Tensor, crop: int = 0, num_crops: int = 1) -> torch.Tensor:
        """Cut square ``crop`` (from 0 at the left or top) of ``num_crops``, a single one from the center.

        The clip ``(C, T, H, W)`` becomes a floating-point one ``(C, T, size, size)``.
        """
        clip = TF.resize(to_float(clip), [self.short_side])
        share = crop / (num_crops - 1) if num_crops > 1 else 0.5
        height, width = clip.shape[-2:]
        top = round((height - self.size) * (share if height > width else 0.5))
        left = round((width - self.size) * (share if width >= height else 0.5))
        return clip[..., top : top + self.size, left : left + self.size]


class ScaleCropClipd(ClipTransformd):
    """Dictionary version of :class:`ScaleCropClip`; the item tells ``crop`` and ``num_crops``, by default 0 and 1."""

    array_transform: ClassVar[type[Transform]] = ScaleCropClip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        square = data.get("crop", 0), data.get("num_crops", 1)
        return {**data, **{key: self.transform(data[key], *square) for key in self.key_iterator(data)}}


@dataclass(eq=False)
class RandAffineClip(RandClipTransform):
    """Crop, rotate, mirror and resize a clip, alike in all frames, in one resampling.

    A crop is drawn as in :class:`RandResizedCropClip` and turned about its center. What lies outside the frame
    becomes black, like the border of an endoscope's picture.
    """

    size: int | Sequence[int]  # height and width of the result in pixels, or one number for both
    scale: Range = (0.6, 1.0)  # share of the frame's area in the crop
    ratio: Range = (0.8, 1.25)  # of the crop's width to its height, relative to the frame's; it is stretched to `size`
    degrees: float = 15.0  # largest angle of rotation, drawn uniformly to both sides
    flip_prob: float = 0.5  # probability that the clip is mirrored from left to right
    vertical_flip_prob: float = 0.0  # likewise from top to bottom

    def __post_init__(self) -> None:
        self.new_size = ensure_tuple_rep(self.size, 2)

    def randomize(self, data: torch.Tensor) -> None:
        height, width = data.shape[-2:]
        low, high = (ratio * width / height for ratio in self.ratio)
        self.box = draw_crop((height, width), self.scale, (low, high), self.R)
        self.angle = math.radians(self.R.uniform(-self.degrees, self.degrees))
        self.flips = [-1 if self.R.random() < prob else 1 for prob in (self.flip_prob, self.vertical_flip_prob)]

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Resample a clip bilinearly, antialiased where it shrinks."""
        size = [  # of the whole frame, such that the crop gets the size of the result
            round(full * min(1.0, new / old))
            for full, new, old in zip(clip.shape[-2:], self.new_size, self.box[2:], strict=True)
        ]
        frames = F.interpolate(to_float(clip).transpose(0, 1), size, mode="bilinear", antialias=True)
        return self._sample(frames, clip.shape[-2:], "bilinear").transpose(0, 1)

    def apply_to_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Resample masks ``(1, T, H, W)`` of the clip by the same draws; the nearest value counts, the type stays."""
        return self._sample(masks.transpose(0, 1).float(), masks.shape[-2:], "nearest").transpose(0, 1).to(masks.dtype)

    def _sample(self, frames: torch.Tensor, frame_size: Sequence[int], mode: str) -> torch.Tensor:
        """Take the crop out of frames ``(T, C, H, W)``, whose crop was drawn for ``frame_size``."""
        full_height, full_width = frame_size
        top, left, height, width = self.box
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        half_width, half_height = self.flips[0] * width, self.flips[1] * height
        center = (2 * left + width) / full_width - 1, (2 * top + height) / full_height - 1
        matrix = [  # from a place in the result to one in the frame, both in [-1, 1]
            [half_width * cos / full_width, -half_height * sin / full_width, center[0]],
            [half_width * sin / full_height, half_height * cos / full_height, center[1]],
        ]
        grid = F.affine_grid(frames.new_tensor([matrix]), [1, 1, *self.new_size], align_corners=False)
        return F.grid_sample(frames, grid.expand(len(frames), -1, -1, -1), mode=mode, align_corners=False)


class RandAffineClipd(RandClipTransformd):
    """Dictionary version of :class:`RandAffineClip`: clips of one size, and the masks an item may have."""

    array_transform: ClassVar[type[Transform]] = RandAffineClip

    def __init__(self, keys: KeysCollection, *args: Any, mask_keys: KeysCollection = (), **kwargs: Any) -> None:
        super().__init__(keys, *args, **kwargs)
        self.mask_keys = ensure_tuple(mask_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = super().__call__(data)
        return d | {key: self.transform.apply_to_masks(d[key]) for key in self.mask_keys if key in d}


RandFlipClipd = dictionary_version(RandFlipClip)
RandResizedCropClipd = dictionary_version(RandResizedCropClip)
RandScaleCropClipd = dictionary_version(RandScaleCropClip)
ResizeClipd = dictionary_version(ResizeClip)
