# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends

from endofm_monai.transforms.clip_transform import ClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = [
    "PRETRAINING_MEAN",
    "PRETRAINING_STD",
    "REFERENCE_FINETUNING_MEAN",
    "REFERENCE_FINETUNING_STD",
    "NormalizeClip",
    "NormalizeClipd",
]

# RGB statistics for clips in [0, 1]: those of ImageNet, with which the published backbone was pre-trained
PRETRAINING_MEAN = (0.485, 0.456, 0.406)
PRETRAINING_STD = (0.229, 0.224, 0.225)

# the published classification fine-tunes and tests that backbone with these instead, which shifts its input
REFERENCE_FINETUNING_MEAN = (0.45, 0.45, 0.45)
REFERENCE_FINETUNING_STD = (0.225, 0.225, 0.225)


class NormalizeClip(Transform):
    """Subtract a mean from each channel of a clip in ``[0, 1]`` and divide by a standard deviation.

    Args:
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        mean: tuple[float, float, float] = PRETRAINING_MEAN,
        std: tuple[float, float, float] = PRETRAINING_STD,
    ) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Normalize ``(..., C, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, to floating point."""
        clip = to_float(clip)
        mean, std = (clip.new_tensor(value).view(-1, 1, 1, 1) for value in (self.mean, self.std))
        return (clip - mean).div_(std)


class NormalizeClipd(ClipTransformd):
    """Dictionary version of :class:`NormalizeClip`."""

    array_transform = NormalizeClip
