# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import Transform
from monai.utils import ensure_tuple

from endofm_monai.data.readers import ClipInfo, ClipReadError
from endofm_monai.transforms.color import NormalizeClip, RandColorJitterClip, RandGrayscaleClip
from endofm_monai.transforms.geometry import RandFlipClip, RandResizedCropClip
from endofm_monai.transforms.views import RandAugmentViews, RandAugmentViewsd, View

__all__ = ["ClipPairPlan", "RandConceptViews", "RandConceptViewsd"]


@dataclass(frozen=True)
class ClipPairPlan:
    """Two clips of a video, one behind the other, and a still frame of either, as VCL sees a video.

    The clips have one stride, drawn from 1 to ``max_stride`` or as far as the video allows, and lie at a random place.
    The still frames have the same random place in both. Iterating gives the four parts as each :class:`View`.
    """

    num_frames: int = 16  # T of a clip
    frame_size: int = 128  # height and width of all clips in pixels
    max_stride: float = 3.0  # largest distance of two frames of a clip in frames of the video
    scale: tuple[float, float] = (0.4, 1.0)  # smallest and largest share of the frame's area in a crop
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # smallest and largest width-to-height ratio of a crop

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise ValueError(f"ClipPairPlan: `num_frames` must be at least 2, to differ, found {self.num_frames}.")
        if self.max_stride < 1:
            raise ValueError(f"ClipPairPlan: `max_stride` must be at least 1 frame, found {self.max_stride}.")

    def __iter__(self) -> Iterator[View]:
        for frames in (self.num_frames, self.num_frames, 1, 1):
            yield View(frames, self.frame_size, self.scale, is_global=True)

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Indices ``(2T + 2,)`` of the frames of all parts, one part after the other."""
        count = 2 * self.num_frames
        if info.frames < count:
            raise ClipReadError(
                f"{ensure_tuple(item['image'])[0]}: has {info.frames} frames, fewer than two clips of "
                f"`num_frames`={self.num_frames}"
            )
        stride = random.uniform(1, min(self.max_stride, info.frames / count))
        start = random.uniform(0, info.frames - count * stride)
        indices = (start + stride * torch.arange(count)).round().long().clamp(0, info.frames - 1)
        still = random.randint(self.num_frames)
        return torch.cat([indices, indices[still :: self.num_frames]])


class RandConceptViews(RandAugmentViews):
    """Make six clips of the parts of a :class:`ClipPairPlan`: two RGB, two static, two of frame differences.

    RGB and static clips have draws of their own: crop and resize, mirror, gray, jitter the colors, normalize. A static
    clip repeats its frame. The differences are those of the augmented RGB clips, each frame less the one before it, the
    first less the last.
    """

    views: ClipPairPlan  # type: ignore[assignment]

    def __init__(self, views: ClipPairPlan) -> None:
        self.views = views
        self.normalize = NormalizeClip()
        self.transforms = [
            [
                RandResizedCropClip(view.size, view.scale, views.ratio),
                RandFlipClip(prob=0.5),
                RandGrayscaleClip(prob=0.5),
                RandColorJitterClip(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=1.0),
            ]
            for view in views
        ]

    def __call__(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """Make of the frames of all parts, one part after the other ``(3, 2T + 2, H, W)``, clips ``(3, T, S, S)``."""
        *rgb, first_still, second_still = super().__call__(clip)
        static = [still.expand_as(rgb[0]).contiguous() for still in (first_still, second_still)]
        return [*rgb, *static, *(clip - clip.roll(1, dims=1) for clip in rgb)]


class RandConceptViewsd(RandAugmentViewsd):
    """Dictionary version of :class:`RandConceptViews`: the parts become the list of six clips."""

    array_transform: ClassVar[type[Transform]] = RandConceptViews
