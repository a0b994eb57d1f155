# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.base import (
    BGR_LUMA,
    RGB_LUMA,
    ClipTransformd,
    RandClipTransform,
    RandClipTransformd,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    blur_clip,
    to_float,
    to_grayscale,
)

__all__ = [
    "PRETRAINING_MEAN",
    "PRETRAINING_STD",
    "REFERENCE_FINETUNING_MEAN",
    "REFERENCE_FINETUNING_STD",
    "NormalizeClip",
    "NormalizeClipd",
    "RandColorJitterClip",
    "RandColorJitterClipd",
    "RandGaussianBlurClip",
    "RandGaussianBlurClipd",
    "RandGrayscaleClip",
    "RandGrayscaleClipd",
    "RandSolarizeClip",
    "RandSolarizeClipd",
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
