# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from monai.transforms import Transform
from monai.utils import TransformBackends

from endofm_monai.transforms.clip_transform import ClipTransformd, RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = ["RandScaleCropClip", "RandScaleCropClipd", "ScaleCropClip", "ScaleCropClipd"]


class RandScaleCropClip(RandClipTransform):
    """Resize a clip to a random size and cut a square out of it at a random place, as published for fine-tuning.

    Args:
        size: height and width of the square in pixels.
        short_side: smallest and largest length of the resized short side in pixels; the ratio of the sides is kept.
        reference_crop: resize without antialiasing and never take the last row or column, as the published code does.

    Raises:
        ValueError: when a short side may be smaller than ``size``.
    """

    def __init__(self, size: int = 224, short_side: tuple[int, int] = (256, 320), reference_crop: bool = False) -> None:
        super().__init__(prob=1.0)
        if not size <= short_side[0] <= short_side[1]:
            raise ValueError(f"`short_side` must rise from `size`={size} on, found {short_side}.")
        self.size = size
        self.short_side = short_side
        self.reference_crop = reference_crop

    def randomize(self, data: torch.Tensor) -> None:
        """Draw the size, and the corner as shares of the room that is left."""
        self.length = round(self.R.uniform(*self.short_side))
        self.corner = self.R.uniform(size=2)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Resize and cut."""
        clip = _scale(clip, self.length, antialias=not self.reference_crop)
        room = [side - self.size + (not self.reference_crop) for side in clip.shape[-2:]]
        top, left = (int(share * length) for share, length in zip(self.corner, room, strict=True))
        return clip[..., top : top + self.size, left : left + self.size]


class RandScaleCropClipd(RandClipTransformd):
    """Dictionary version of :class:`RandScaleCropClip`; the clips must be equally large."""

    array_transform = RandScaleCropClip


class ScaleCropClip(Transform):
    """Resize a clip and cut one of several squares out of it, which are evenly spread along the long side.

    Args:
        size: height and width of the square in pixels.
        short_side: length of the resized short side in pixels; the ratio of the sides is kept.
        reference_crop: cut as the published validation does, by a slip in its configuration: from a clip that is
            resized to the short side ``size`` without antialiasing, the leftmost or topmost square.

    Raises:
        ValueError: when the short side is smaller than ``size``.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int = 224, short_side: int = 256, reference_crop: bool = False) -> None:
        if short_side < size:
            raise ValueError(f"`short_side` must be at least `size`={size}, found {short_side}.")
        self.size = size
        self.short_side = short_side
        self.reference_crop = reference_crop

    def __call__(self, clip: torch.Tensor, crop: int = 0, num_crops: int = 1) -> torch.Tensor:
        """Resize and cut.

        Args:
            clip: ``(C, T, H, W)``, uint8 or floating point in ``[0, 1]``.
            crop: number of the square, from 0 at the left or top.
            num_crops: number of squares; a single one is in the center.

        Returns:
            floating-point clip ``(C, T, size, size)``.
        """
        if self.reference_crop:
            return _scale(clip, self.size, antialias=False)[..., : self.size, : self.size]
        clip = _scale(clip, self.short_side, antialias=True)
        share = crop / (num_crops - 1) if num_crops > 1 else 0.5
        height, width = clip.shape[-2:]
        top = round((height - self.size) * (share if height > width else 0.5))
        left = round((width - self.size) * (share if width >= height else 0.5))
        return clip[..., top : top + self.size, left : left + self.size]


class ScaleCropClipd(ClipTransformd):
    """Dictionary version of :class:`ScaleCropClip`; the item tells ``crop`` and ``num_crops``, by default 0 and 1."""

    array_transform = ScaleCropClip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the clips at ``keys``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d.get("crop", 0), d.get("num_crops", 1))
        return d


def _scale(clip: torch.Tensor, short_side: int, antialias: bool) -> torch.Tensor:
    """Resize bilinearly so that the short side has a given length; the long one is rounded down."""
    height, width = clip.shape[-2:]
    size = [side * short_side // min(height, width) for side in (height, width)]
    return F.interpolate(to_float(clip), size, mode="bilinear", align_corners=False, antialias=antialias)
