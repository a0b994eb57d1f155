# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Transform
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.base import RandClipTransform, dictionary_version, to_float

__all__ = [
    "PRETRAINING_MEAN", "PRETRAINING_STD", "NormalizeClip", "NormalizeClipd", "RandColorJitterClip",
    "RandColorJitterClipd", "RandGaussianBlurClip", "RandGaussianBlurClipd", "RandGrayscaleClip",
    "RandGrayscaleClipd", "RandSolarizeClip", "RandSolarizeClipd",
]  # fmt: skip

# RGB statistics for clips in [0, 1]: those of ImageNet, with which the published backbone was pre-trained
PRETRAINING_MEAN = (0.485, 0.456, 0.406)
PRETRAINING_STD = (0.229, 0.224, 0.225)
RGB_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def to_grayscale(clip: torch.Tensor, luma: tuple[float, float, float] = RGB_LUMA) -> torch.Tensor:
    """Weigh the three channels of a floating-point clip ``(3, T, H, W)`` to its luma ``(1, T, H, W)``."""
    if clip.shape[0] != 3:
        raise ValueError(f"A color clip must be (3, T, H, W), found {tuple(clip.shape)}.")
    gray = clip[0] * luma[0]
    return gray.add_(clip[1], alpha=luma[1]).add_(clip[2], alpha=luma[2]).unsqueeze(0)


def blur_clip(clip: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur the frames of a floating-point clip ``(..., H, W)`` with a Gaussian of ``sigma`` pixels, cut at 4 sigma."""
    rows, columns = (torch.arange(size, dtype=clip.dtype, device=clip.device) for size in clip.shape[-2:])
    # two matrix products: on a CPU several times faster than a depthwise convolution
    return blur_weights(rows, sigma) @ clip @ blur_weights(columns, sigma).T


def blur_weights(centers: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """Weights ``(..., S, S)`` of a row of S pixels in each of S blurred ones, which lie at ``centers`` ``(..., S)``."""
    position = torch.arange(centers.shape[-1], dtype=centers.dtype, device=centers.device)
    exponent = -((centers.unsqueeze(-1) - position) / sigma).square() / 2
    return torch.softmax(exponent.masked_fill(exponent < -8, -math.inf), dim=-1)


@dataclass(eq=False)
class NormalizeClip(Transform):
    """Subtract from each channel of a clip in ``[0, 1]`` its mean and divide by its standard deviation."""

    mean: tuple[float, float, float] = PRETRAINING_MEAN
    std: tuple[float, float, float] = PRETRAINING_STD

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Normalize ``(..., C, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, to floating point."""
        clip = to_float(clip)
        mean, std = (clip.new_tensor(value).view(-1, 1, 1, 1) for value in (self.mean, self.std))
        return (clip - mean).div_(std)


@dataclass(eq=False)
class RandColorJitterClip(RandClipTransform):
    """Change brightness, contrast, saturation and hue of a clip in random order, alike in all frames.

    A strength ``v`` means a factor drawn uniformly from ``[1 - v, 1 + v]``, for the hue a turn from ``[-v, v]``. The
    result is clipped to ``[0, 1]`` once, at the end. The default strengths are those of the published pre-training;
    the hue stays, as it tells the tissue.
    """

    luma = RGB_LUMA
    brightness: float = 0.4  # strength, 0 to 1
    contrast: float = 0.4  # likewise, about the mean luma of each frame
    saturation: float = 0.2  # likewise
    hue: float = 0.0  # strength in turns, 0 to 0.5
    prob: float = 0.8  # probability that a clip is changed

    def __post_init__(self) -> None:
        self.strengths = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        for name, strength in self.strengths.items():
            largest = 0.5 if name == "hue" else 1.0
            if not 0 <= strength <= largest:
                raise ValueError(f"RandColorJitterClip: `{name}` must be from 0 to {largest}, found {strength}.")

    def randomize(self, data: torch.Tensor) -> None:
        super().randomize(data)
        names = self.R.permutation([name for name, strength in self.strengths.items() if strength > 0])
        self.changes = [(name, self.R.uniform(-self.strengths[name], self.strengths[name])) for name in names]

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """What was drawn as products: of a pixel's channels, and of the mean pixel of its frame; each ``(3, 3)``.

        Their sum, clipped, is the new pixel. There are none for a hue.
        """
        gray = np.tile(self.luma, (3, 1))
        pixel, mean = np.eye(3), np.zeros((3, 3))
        for name, change in self.changes if self._do_transform else []:
            if name == "contrast":
                pixel, mean = (1 + change) * pixel, (1 + change) * mean - change * gray @ (pixel + mean)
            else:
                step = (1 + change) * np.eye(3) - (change * gray if name == "saturation" else 0)
                pixel, mean = step @ pixel, step @ mean
        return pixel, mean

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return self.change(clip).clamp(0, 1)

    def change(self, clip: torch.Tensor) -> torch.Tensor:
        """Change the colors, and keep what leaves the range."""
        clip = to_float(clip)
        for name, change in self.changes:
            if name == "brightness":
                clip = clip * (1 + change)
            elif name == "hue":  # which exists only within [0, 1]
                clip = TF.adjust_hue(clip.clamp(0, 1).transpose(0, 1), change).transpose(0, 1)
            else:  # pixels move to or from their luma, frames to or from the mean of it
                gray = to_grayscale(clip, self.luma)
                clip = torch.lerp(gray.mean((-2, -1), keepdim=True) if name == "contrast" else gray, clip, 1 + change)
        return clip


@dataclass(eq=False)
class RandGrayscaleClip(RandClipTransform):
    """Replace the colors of a clip by their luma, in three equal channels."""

    luma = RGB_LUMA
    prob: float = 0.2

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return to_grayscale(to_float(clip), self.luma).repeat(3, 1, 1, 1)


@dataclass(eq=False)
class RandGaussianBlurClip(RandClipTransform):
    """Blur all frames of a clip with the same Gaussian."""

    sigma: tuple[float, float] = (0.1, 2.0)  # range of its standard deviation in pixels; that of DINO
    prob: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.sigma
        if not 0 < low <= high:
            raise ValueError(f"RandGaussianBlurClip: `sigma` must be (low, high), 0 < low <= high, found {self.sigma}.")

    def randomize(self, data: torch.Tensor) -> None:
        super().randomize(data)
        self.drawn_sigma = self.R.uniform(*self.sigma)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return blur_clip(to_float(clip), self.drawn_sigma)


@dataclass(eq=False)
class RandSolarizeClip(RandClipTransform):
    """Invert the bright half of a clip's range: ``x`` becomes ``min(x, 1 - x)``."""

    prob: float = 0.2

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        clip = to_float(clip)
        return torch.minimum(clip, 1 - clip)


NormalizeClipd = dictionary_version(NormalizeClip)
RandColorJitterClipd = dictionary_version(RandColorJitterClip)
RandGaussianBlurClipd = dictionary_version(RandGaussianBlurClip)
RandGrayscaleClipd = dictionary_version(RandGrayscaleClip)
RandSolarizeClipd = dictionary_version(RandSolarizeClip)
