# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends, ensure_tuple
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.clip_transform import ClipTransformd

__all__ = ["ResizeClip", "ResizeClipd"]


class ResizeClip(Transform):
    """Resize the frames of a clip to a given short side, keeping the ratio of the sides, or to a given size.

    Bilinear and antialiased. Followed by MONAI's ``CenterSpatialCrop`` with ``roi_size=(-1, 224, 224)`` it is the usual
    preparation for evaluation.

    Args:
        size: length of the short side in pixels, or height and width.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = list(ensure_tuple(size))

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Resize ``(..., T, H, W)``, uint8 or floating point; the type stays."""
        return TF.resize(clip, self.size, antialias=True)


class ResizeClipd(ClipTransformd):
    """Dictionary version of :class:`ResizeClip`."""

    array_transform = ResizeClip
