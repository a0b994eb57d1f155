# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import blur_clip, to_float

__all__ = ["RandGaussianBlurClip", "RandGaussianBlurClipd"]


class RandGaussianBlurClip(RandClipTransform):
    """Blur all frames of a clip with the same Gaussian.

    Args:
        sigma: smallest and largest standard deviation in pixels, drawn uniformly; the default is that of DINO.
        prob: probability that a clip is blurred.

    Raises:
        ValueError: when ``sigma`` is not ascending and positive.
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 0.5) -> None:
        super().__init__(prob)
        if not 0 < sigma[0] <= sigma[1]:
            raise ValueError(f"RandGaussianBlurClip: `sigma` must be (low, high) with 0 < low <= high, found {sigma}.")
        self.sigma = sigma

    def randomize(self, data: torch.Tensor) -> None:
        """Draw whether and how much to blur."""
        super().randomize(data)
        self.drawn_sigma = self.R.uniform(*self.sigma)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Blur."""
        return blur_clip(to_float(clip), self.drawn_sigma)


class RandGaussianBlurClipd(RandClipTransformd):
    """Dictionary version of :class:`RandGaussianBlurClip`."""

    array_transform = RandGaussianBlurClip
