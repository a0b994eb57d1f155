# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import TransformBackends

from endofm_monai.transforms.blur import RandGaussianBlurClip
from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.color import RandColorJitterClip, RandGrayscaleClip
from endofm_monai.transforms.flip import RandFlipClip
from endofm_monai.transforms.functional import resize_to_square
from endofm_monai.transforms.normalization import PRETRAINING_MEAN, PRETRAINING_STD, NormalizeClip
from endofm_monai.transforms.resized_crop import draw_crop
from endofm_monai.transforms.solarize import RandSolarizeClip
from endofm_monai.transforms.view_plan import View, ViewPlan

__all__ = ["RandAugmentViews", "RandAugmentViewsd"]


class RandAugmentViews(Randomizable, Transform):
    """Make the views of a clip: crop and resize, mirror, jitter the colors, gray, blur, solarize, normalize.

    Each view has its own draws, the same for all its frames. They are made on the CPU, so that with the same seed the
    views are the same whether they are made in a worker or on a GPU. The defaults are those of the published
    pre-training, with the blur and the solarization of DINO that it meant to apply; where its code does something
    else than it means, a ``reference_*`` option reproduces that.

    Args:
        views: the views to make.
        flip_prob: probability of a mirrored view.
        jitter_prob: probability of jittered colors.
        brightness: strength of the jitter, see :class:`RandColorJitterClip`.
        contrast: likewise.
        saturation: likewise.
        hue: likewise.
        gray_prob: probability of a gray view.
        global_blur_prob: probability of blur in each global view; further views start again with the first value.
        local_blur_prob: probability of blur in a local view.
        global_solarize_prob: probability of solarization in each global view, like ``global_blur_prob``; local views
            are never solarized.
        mean: mean of each channel for clips in ``[0, 1]``, see :class:`NormalizeClip`.
        std: standard deviation of each channel.
        reference_crop: crop as the published code does, see :func:`draw_crop` and
            :func:`resize_to_square`.
        reference_color: compute colors as the published code does, see :class:`RandColorJitterClip`.
        reference_no_blur_solarize: neither blur nor solarize; the published code calls for both, but its functions
            return their input.

    Example::

        augment = RandAugmentViews(ViewPlan()).set_random_state(seed=0)
        views = augment(*RandLoadViews(ViewPlan())("video.mp4"))  # [(3, 8, 224, 224), (3, 16, 224, 224), …]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        views: ViewPlan,
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.0,
        gray_prob: float = 0.2,
        global_blur_prob: Sequence[float] = (1.0, 0.1),
        local_blur_prob: float = 0.5,
        global_solarize_prob: Sequence[float] = (0.0, 0.2),
        mean: tuple[float, float, float] = PRETRAINING_MEAN,
        std: tuple[float, float, float] = PRETRAINING_STD,
        reference_crop: bool = False,
        reference_color: bool = False,
        reference_no_blur_solarize: bool = False,
    ) -> None:
        def transforms_of(view: View, number: int) -> list[RandClipTransform]:
            transforms: list[RandClipTransform] = [
                RandFlipClip(flip_prob),
                RandColorJitterClip(brightness, contrast, saturation, hue, jitter_prob, reference_color),
                RandGrayscaleClip(gray_prob, reference_color),
            ]
            if reference_no_blur_solarize:
                return transforms
            if not view.is_global:
                return [*transforms, RandGaussianBlurClip(prob=local_blur_prob)]
            return [
                *transforms,
                RandGaussianBlurClip(prob=global_blur_prob[number % len(global_blur_prob)]),
                RandSolarizeClip(prob=global_solarize_prob[number % len(global_solarize_prob)]),
            ]

        self.views = views
        self.transforms = [transforms_of(view, number) for number, view in enumerate(views)]
        self.reference_crop = reference_crop
        self.normalize = NormalizeClip(mean, std)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandAugmentViews:
        """Seed the draws of all views; see MONAI's ``Randomizable``."""
        super().set_random_state(seed, state)
        for transform in (transform for transforms in self.transforms for transform in transforms):
            transform.set_random_state(state=self.R)
        return self

    def __call__(self, clip: torch.Tensor, view_frames: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Make the views.

        Args:
            clip: frames ``(3, U, H, W)``, uint8 ``0..255`` or floating point ``0..1``.
            view_frames: for each view an int64 tensor ``(T,)`` of indices into the frames, from
                :class:`RandLoadViews`.

        Returns:
            for each view a normalized floating-point clip ``(3, T, S, S)`` (float32 for uint8) on the clip's device.

        Raises:
            ValueError: when the number of views is not that of the plan.
        """
        if len(view_frames) != len(self.views):
            raise ValueError(
                f"`view_frames` must hold {len(self.views)} views, as the plan does, found {len(view_frames)}."
            )
        made = []
        for view, frames, transforms in zip(self.views, view_frames, self.transforms, strict=True):
            top, left, height, width = draw_crop(
                clip.shape[-2:], view.scale, self.views.ratio, self.R, self.reference_crop
            )
            crop = clip[:, :, top : top + height, left : left + width][:, frames]  # copies no more than the crop
            augmented = resize_to_square(crop, view.size, self.reference_crop)
            for transform in transforms:
                augmented = transform(augmented)
            made.append(self.normalize(augmented))
        return made


class RandAugmentViewsd(RandClipTransformd):
    """Dictionary version of :class:`RandAugmentViews`.

    It takes the frames of the views from ``view_frames``, which it removes. An item with a ``seed`` gets the views of
    that seed, so that they are the same in a worker and later on a GPU.
    """

    array_transform = RandAugmentViews

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the clip by the list of its views; all else stays."""
        d = dict(data)
        if "seed" in d:
            self.set_random_state(seed=int(d["seed"]))
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d.pop("view_frames"))
        return d
