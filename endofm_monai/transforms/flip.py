# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = ["RandFlipClip", "RandFlipClipd"]


class RandFlipClip(RandClipTransform):
    """Mirror a clip from left to right.

    Unlike MONAI's ``RandFlip(spatial_axis=2)`` it draws for each clip of a batch and leaves a tensor a plain tensor.

    Args:
        prob: probability of a mirrored clip.
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Mirror."""
        return to_float(clip).flip(-1)


class RandFlipClipd(RandClipTransformd):
    """Dictionary version of :class:`RandFlipClip`."""

    array_transform = RandFlipClip
