# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import (
    BGR_LUMA,
    RGB_LUMA,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    to_float,
    to_grayscale,
)

__all__ = ["RandColorJitterClip", "RandColorJitterClipd", "RandGrayscaleClip", "RandGrayscaleClipd"]


class RandColorJitterClip(RandClipTransform):
    """Change brightness, contrast, saturation and hue of a clip in random order, alike in all frames.

    A strength ``v`` means a factor drawn uniformly from ``[1 - v, 1 + v]``, for the hue a turn from ``[-v, v]``. The
    result is clipped to ``[0, 1]`` once, at the end. The default strengths are those of the published pre-training;
    the hue stays, as it tells the tissue.

    Args:
        brightness: strength for the brightness, 0 to 1.
        contrast: strength for the contrast about the mean luma of each frame, 0 to 1.
        saturation: strength for the saturation, 0 to 1.
        hue: strength for the hue in turns, 0 to 0.5.
        prob: probability that a clip is changed.
        reference_color: compute as the published code does: luma with the weights of red and blue swapped, and no
            clipping.

    Raises:
        ValueError: when a strength is outside its range.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.0,
        prob: float = 0.8,
        reference_color: bool = False,
    ) -> None:
        super().__init__(prob)
        self.strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, strength in self.strengths.items():
            largest = 0.5 if name == "hue" else 1.0
            if not 0 <= strength <= largest:
                raise ValueError(f"RandColorJitterClip: `{name}` must be from 0 to {largest}, found {strength}.")
        self.reference_color = reference_color

    def randomize(self, data: torch.Tensor) -> None:
        """Draw whether, in which order and how much to change."""
        super().randomize(data)
        names = self.R.permutation([name for name, strength in self.strengths.items() if strength > 0])
        self.changes = [(name, self.R.uniform(-self.strengths[name], self.strengths[name])) for name in names]

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Change the colors."""
        luma = BGR_LUMA if self.reference_color else RGB_LUMA
        clip = to_float(clip)
        for name, change in self.changes:
            if name == "brightness":
                clip = adjust_brightness(clip, 1 + change)
            elif name == "contrast":
                clip = adjust_contrast(clip, 1 + change, luma)
            elif name == "saturation":
                clip = adjust_saturation(clip, 1 + change, luma)
            else:  # a hue exists only within [0, 1]
                clip = TF.adjust_hue(clip.clamp(0, 1).transpose(0, 1), change).transpose(0, 1)
        return clip if self.reference_color else clip.clamp(0, 1)


class RandColorJitterClipd(RandClipTransformd):
    """Dictionary version of :class:`RandColorJitterClip`."""

    array_transform = RandColorJitterClip


class RandGrayscaleClip(RandClipTransform):
    """Replace the colors of a clip by their luma, in three equal channels.

    Args:
        prob: probability that a clip loses its colors.
        reference_color: swap the weights of red and blue, as the published code does.
    """

    def __init__(self, prob: float = 0.2, reference_color: bool = False) -> None:
        super().__init__(prob)
        self.luma = BGR_LUMA if reference_color else RGB_LUMA

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Take the colors away."""
        return to_grayscale(to_float(clip), self.luma).repeat(3, 1, 1, 1)


class RandGrayscaleClipd(RandClipTransformd):
    """Dictionary version of :class:`RandGrayscaleClip`."""

    array_transform = RandGrayscaleClip
