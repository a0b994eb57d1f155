# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor, ensure_tuple

from endofm_monai.data.readers import ClipInfo, ClipReadError
from endofm_monai.data.sampling import linspace_indices
from endofm_monai.transforms import color
from endofm_monai.transforms.base import RandClipTransform, RandClipTransformd, dictionary_version
from endofm_monai.transforms.geometry import RandFlipClip, RandResizedCropClip

__all__ = ["ClipPairPlan", "RandAugmentViews", "RandAugmentViewsd", "RandConceptViews", "RandConceptViewsd", "ViewPlan"]

GLOBAL_SHIFT = 5  # frames by which the last global view starts and ends later than the first


@dataclass(frozen=True)
class View:
    """One view of a clip."""

    frames: int
    size: int  # height and width in pixels
    scale: tuple[float, float]  # smallest and largest share of the frame's area that its crop covers
    is_global: bool  # whether the teacher sees it


@dataclass(frozen=True)
class ViewPlan:
    """How many views are taken of a clip, how long and how large; iterating gives each :class:`View`, global first.

    The defaults are the ten views of the published pre-training, which spreads 8 frames over 32 frames each at 30
    frames per second. Sequences may be lists, as in a JSON config. As the sampler of :class:`LoadClipd` it reads the
    frames of all views, one view after the other: from a window at a random place, or from all of a shorter video.
    """

    global_frames: tuple[int, ...] = (8, 16)  # number of frames of each global view
    local_frames: tuple[int, ...] = (2, 2, 4, 4, 8, 8, 16, 16)
    global_size: int = 224  # height and width of the global views in pixels
    local_size: int = 96
    global_scale: tuple[float, float] = (0.4, 1.0)  # smallest and largest share of the frame's area in a crop
    local_scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # smallest and largest width-to-height ratio of a crop
    local_span: float = 1 / 8  # share of the clip's duration that a local view covers
    window: float = 8 * 32 / 30  # duration of the window in seconds

    def __post_init__(self) -> None:
        for name in ("global_frames", "local_frames", "global_scale", "local_scale", "ratio"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.global_frames:
            raise ValueError("ViewPlan: `global_frames` must name at least one view, found none.")
        for name in ("global_frames", "local_frames", "global_size", "local_size"):
            value = ensure_tuple(getattr(self, name))
            if not all(isinstance(number, int) and number > 0 for number in value):
                raise ValueError(f"ViewPlan: `{name}` must hold positive integers, found {value}.")
        for name, most in (("global_scale", 1.0), ("local_scale", 1.0), ("ratio", float("inf"))):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
                raise ValueError(f"ViewPlan: `{name}` must be (low, high), 0 < low <= high <= {most}, found {value}.")
        if not self.window > 0:
            raise ValueError(f"ViewPlan: `window` must be a positive number of seconds, found {self.window}.")
        if not 0 < self.local_span <= 1:
            raise ValueError(f"ViewPlan: `local_span` must be above 0 and at most 1, found {self.local_span}.")

    def __iter__(self) -> Iterator[View]:
        for frames in self.global_frames:
            yield View(frames, self.global_size, self.global_scale, is_global=True)
        for frames in self.local_frames:
            yield View(frames, self.local_size, self.local_scale, is_global=False)

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Indices of the frames of all views, one view after the other."""
        window = min(info.frames, max(1, round(self.window * info.fps)))
        start = random.randint(info.frames - window + 1)
        return start + torch.cat(self.draw_frames(window, random))

    def draw_frames(self, clip_frames: int, random_state: np.random.RandomState) -> list[torch.Tensor]:
        """Draw the frames of each view of a clip, as ascending int64 indices ``(T,)``.

        A global view spans the clip but for five frames: the first view leaves them out at the end, the last one at
        the start, and those between lie evenly between (a single one spans the whole clip; below ten frames half of
        the clip is left out). A local view spans ``local_span`` of the clip from a random frame. For the default plan
        this is the published sampling. A span with fewer frames than its view repeats frames, so one frame is enough.
        """
        shift = min(GLOBAL_SHIFT, clip_frames // 2) if len(self.global_frames) > 1 else 0
        starts = np.linspace(0, shift, len(self.global_frames)).tolist()
        width = int(clip_frames * self.local_span)
        indices = []
        for start, frames in zip(starts, self.global_frames, strict=True):
            indices.append(linspace_indices(start, clip_frames - shift + start, frames, clip_frames))
        for frames in self.local_frames:
            start = random_state.randint(max(clip_frames - width, 1))
            indices.append(linspace_indices(start, start + width, frames, clip_frames))
        return indices


@dataclass(eq=False)
class RandAugmentViews(Randomizable, Transform):
    """Make the views of a clip: crop and resize, mirror, jitter the colors, gray, blur, solarize, normalize.

    Each view has its own draws, the same for all its frames. They are made on the CPU, so that with the same seed the
    views are the same whether they are made in a worker or on a GPU. The defaults are those of the published
    pre-training, with the blur and the solarization of DINO that it meant to apply.
    """

    crop: ClassVar[type[RandResizedCropClip]] = RandResizedCropClip
    color_jitter: ClassVar[type[color.RandColorJitterClip]] = color.RandColorJitterClip
    grayscale: ClassVar[type[color.RandGrayscaleClip]] = color.RandGrayscaleClip
    has_blur: ClassVar[bool] = True

    views: ViewPlan
    flip_prob: float = 0.5  # probability of a mirrored view
    jitter_prob: float = 0.8  # probability of jittered colors
    brightness: float = 0.4  # strength of the jitter, see `RandColorJitterClip`; likewise the next three
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.0
    gray_prob: float = 0.2  # probability of a gray view
    global_blur_prob: Sequence[float] = (1.0, 0.1)  # of each global view; further ones start again with the first value
    local_blur_prob: float = 0.5
    global_solarize_prob: Sequence[float] = (0.0, 0.2)  # likewise; local views are never solarized
    mean: tuple[float, float, float] = color.PRETRAINING_MEAN  # of each channel, see `NormalizeClip`
    std: tuple[float, float, float] = color.PRETRAINING_STD

    def __post_init__(self) -> None:
        self.normalize = color.NormalizeClip(self.mean, self.std)
        blur, solarize = self.global_blur_prob, self.global_solarize_prob
        self.transforms: list[list[RandClipTransform]] = []
        for number, view in enumerate(self.views):
            transforms: list[RandClipTransform] = [
                self.crop(view.size, view.scale, self.views.ratio),
                RandFlipClip(self.flip_prob),
                self.color_jitter(self.brightness, self.contrast, self.saturation, self.hue, self.jitter_prob),
                self.grayscale(self.gray_prob),
            ]
            if self.has_blur and view.is_global:
                transforms.append(color.RandGaussianBlurClip(prob=blur[number % len(blur)]))
                transforms.append(color.RandSolarizeClip(solarize[number % len(solarize)]))
            elif self.has_blur:
                transforms.append(color.RandGaussianBlurClip(prob=self.local_blur_prob))
            self.transforms.append(transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandAugmentViews:
        super().set_random_state(seed, state)
        for transform in chain.from_iterable(self.transforms):
            transform.set_random_state(state=self.R)
        return self

    def __call__(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """Make of the frames of all views, one view after the other ``(3, T, H, W)``, a clip ``(3, T, S, S)`` each.

        They are floating point (float32 for uint8) and on the same device.
        """
        views = self.split(clip)
        for number, transforms in enumerate(self.transforms):
            for transform in transforms:
                views[number] = transform(views[number])
        return [self.normalize(view) for view in views]

    def split(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """The frames of each view, unchanged."""
        frames = [view.frames for view in self.views]
        if clip.shape[1] != sum(frames):
            raise ValueError(f"`clip` must hold {sum(frames)} frames, those of the views, found {clip.shape[1]}.")
        return list(convert_to_tensor(clip, track_meta=False).split(frames, dim=1))


class RandAugmentViewsd(RandClipTransformd):
    """Dictionary version of :class:`RandAugmentViews`: the clip becomes the list of its views.

    An item with a ``seed`` gets the views of that seed, so that they are the same in a worker and later on a GPU.
    """

    array_transform: ClassVar[type[Transform]] = RandAugmentViews

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if "seed" in data:
            self.set_random_state(seed=int(data["seed"]))
        return super().__call__(data)


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
            name, needed = ensure_tuple(item["image"])[0], f"two clips of `num_frames`={self.num_frames}"
            raise ClipReadError(f"{name}: has {info.frames} frames, fewer than {needed}")
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
        self.normalize = color.NormalizeClip()
        self.transforms = [
            [
                RandResizedCropClip(view.size, view.scale, views.ratio),
                RandFlipClip(prob=0.5),
                color.RandGrayscaleClip(prob=0.5),
                color.RandColorJitterClip(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25, prob=1.0),
            ]
            for view in views
        ]

    def __call__(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """Make of the frames of all parts, one part after the other ``(3, 2T + 2, H, W)``, clips ``(3, T, S, S)``."""
        *rgb, first_still, second_still = super().__call__(clip)
        static = [still.expand_as(rgb[0]).contiguous() for still in (first_still, second_still)]
        return [*rgb, *static, *(clip - clip.roll(1, dims=1) for clip in rgb)]


RandConceptViewsd = dictionary_version(RandConceptViews, RandAugmentViewsd)
