# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor

from endofm_monai.data.readers import ClipInfo
from endofm_monai.data.sampling import linspace_indices
from endofm_monai.transforms.base import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.color import (
    PRETRAINING_MEAN,
    PRETRAINING_STD,
    NormalizeClip,
    RandColorJitterClip,
    RandGaussianBlurClip,
    RandGrayscaleClip,
    RandSolarizeClip,
)
from endofm_monai.transforms.geometry import RandFlipClip, RandResizedCropClip

__all__ = ["RandAugmentViews", "RandAugmentViewsd", "View", "ViewPlan"]

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

    The defaults are the ten views of the published pre-training. Sequences may be lists, as in a JSON config. As the
    sampler of :class:`LoadClipd` it reads the frames of all views, one view after the other. Of a longer video the
    views lie in a window at a random place, as in the published pre-training, which spreads 8 frames over 32 frames
    each at 30 frames per second; a shorter one is used whole.

    Example::

        plan = ViewPlan(local_frames=[2, 4])
        [(view.frames, view.size) for view in plan]  # [(8, 224), (16, 224), (2, 96), (4, 96)]
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
            value = getattr(self, name)
            if not all(isinstance(n, int) and n > 0 for n in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"ViewPlan: `{name}` must hold positive integers, found {value}.")
        for name, largest in (("global_scale", 1.0), ("local_scale", 1.0), ("ratio", float("inf"))):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= largest:
                raise ValueError(
                    f"ViewPlan: `{name}` must be (low, high), 0 < low <= high <= {largest}, found {value}."
                )
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

    Example::

        plan = ViewPlan()
        clip = LoadClipd("image", plan)({"image": "video.mp4"})["image"]
        views = RandAugmentViews(plan).set_random_state(seed=0)(clip)  # [(3, 8, 224, 224), (3, 16, 224, 224), …]
    """

    crop: ClassVar[type[RandResizedCropClip]] = RandResizedCropClip
    color_jitter: ClassVar[type[RandColorJitterClip]] = RandColorJitterClip
    grayscale: ClassVar[type[RandGrayscaleClip]] = RandGrayscaleClip
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
    mean: tuple[float, float, float] = PRETRAINING_MEAN  # of each channel, see `NormalizeClip`
    std: tuple[float, float, float] = PRETRAINING_STD

    def __post_init__(self) -> None:
        self.normalize = NormalizeClip(self.mean, self.std)
        self.transforms: list[list[RandClipTransform]] = []
        for number, view in enumerate(self.views):
            transforms: list[RandClipTransform] = [
                self.crop(view.size, view.scale, self.views.ratio),
                RandFlipClip(self.flip_prob),
                self.color_jitter(self.brightness, self.contrast, self.saturation, self.hue, self.jitter_prob),
                self.grayscale(self.gray_prob),
            ]
            if self.has_blur:
                blur, solarize = self.global_blur_prob, self.global_solarize_prob
                prob = blur[number % len(blur)] if view.is_global else self.local_blur_prob
                transforms.append(RandGaussianBlurClip(prob=prob))
                if view.is_global:
                    transforms.append(RandSolarizeClip(solarize[number % len(solarize)]))
            self.transforms.append(transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandAugmentViews:
        """Seed the draws of all views; see MONAI's ``Randomizable``."""
        super().set_random_state(seed, state)
        for transform in (transform for transforms in self.transforms for transform in transforms):
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
        """Make the views; all else stays."""
        if "seed" in data:
            self.set_random_state(seed=int(data["seed"]))
        return super().__call__(data)
