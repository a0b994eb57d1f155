# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends

from endofm_monai.transforms.clip_transform import ClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = ["ReferenceBGRClip", "ReferenceBGRClipd"]

MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, 0..255


class ReferenceBGRClip(Transform):
    """Give a clip the channel order and range of the published detection, which its pre-training did not have.

    Channels become blue, green and red, ``0..255``, less their mean over ImageNet.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """From RGB ``(3, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, to floating point."""
        clip = to_float(clip).flip(0) * 255
        return clip - clip.new_tensor(MEAN).view(-1, 1, 1, 1)


class ReferenceBGRClipd(ClipTransformd):
    """Dictionary version of :class:`ReferenceBGRClip`."""

    array_transform = ReferenceBGRClip
