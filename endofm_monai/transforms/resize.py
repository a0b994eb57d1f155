# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.clip_transform import ClipTransformd

__all__ = ["ResizeClip", "ResizeClipd"]


class ResizeClip(Transform):
    """Resize the frames of a clip so that the short side has a given length; the ratio of the sides is kept.

    Bilinear and antialiased. Followed by MONAI's ``CenterSpatialCrop`` with ``roi_size=(-1, 224, 224)`` it is the usual
    preparation for evaluation.

    Args:
        size: length of the short side in pixels.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Resize ``(..., T, H, W)``, uint8 or floating point; the type stays."""
        return TF.resize(clip, [self.size], antialias=True)


class ResizeClipd(ClipTransformd):
    """Dictionary version of :class:`ResizeClip`."""

    array_transform = ResizeClip
