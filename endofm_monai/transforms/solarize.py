# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import to_float

__all__ = ["RandSolarizeClip", "RandSolarizeClipd"]


class RandSolarizeClip(RandClipTransform):
    """Invert the bright values of a clip: ``x`` becomes ``1 - x`` from ``threshold`` on.

    Args:
        threshold: where bright begins, 0 to 1.
        prob: probability that a clip is solarized.
    """

    def __init__(self, threshold: float = 0.5, prob: float = 0.2) -> None:
        super().__init__(prob)
        self.threshold = threshold

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Invert what is bright."""
        return TF.solarize(to_float(clip), self.threshold)


class RandSolarizeClipd(RandClipTransformd):
    """Dictionary version of :class:`RandSolarizeClip`."""

    array_transform = RandSolarizeClip
