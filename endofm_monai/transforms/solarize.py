# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = ["RandSolarizeClip", "RandSolarizeClipd"]


class RandSolarizeClip(RandClipTransform):
    """Invert the bright half of a clip's range: ``x`` becomes ``min(x, 1 - x)``.

    Args:
        prob: probability that a clip is solarized.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Invert what is bright."""
        clip = to_float(clip)
        return torch.minimum(clip, 1 - clip)


class RandSolarizeClipd(RandClipTransformd):
    """Dictionary version of :class:`RandSolarizeClip`."""

    array_transform = RandSolarizeClip
