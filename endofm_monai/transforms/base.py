# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from monai.utils import TransformBackends

__all__ = [
    "BGR_LUMA",
    "RGB_LUMA",
    "ClipTransformd",
    "RandClipTransform",
    "RandClipTransformd",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "blur_clip",
    "resize_to_square",
    "to_float",
    "to_grayscale",
]

RGB_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
BGR_LUMA = RGB_LUMA[::-1]  # what the published code applies to RGB clips


def to_float(clip: torch.Tensor) -> torch.Tensor:
    """Give a clip in floating point: uint8 ``0..255`` becomes float32 ``0..1``, floating point stays as it is.

    Raises:
        TypeError: for any other type.
    """
    if clip.is_floating_point():
        return clip
    if clip.dtype != torch.uint8:
        raise TypeError(f"A clip must be uint8 (0..255) or floating point (0..1), found {clip.dtype}.")
    return clip.to(torch.float32).div_(255)


def resize_to_square(clip: torch.Tensor, size: int, reference: bool = False) -> torch.Tensor:
    """Resize all frames to a square, bicubically.

    Shrinking is antialiased, because specular highlights and vessels flicker otherwise, and the overshoot of the
    bicubic kernel is clipped to ``[0, 1]``.

    Args:
        clip: ``(C, T, H, W)``, uint8 or floating point in ``[0, 1]``.
        size: height and width of the result in pixels.
        reference: resize as the published code does: not antialiased, overshoot kept.

    Returns:
        floating-point clip ``(C, T, size, size)``.
    """
    clip = to_float(clip)
    resized = F.interpolate(clip, (size, size), mode="bicubic", align_corners=False, antialias=not reference)
    return resized if reference else resized.clamp_(0, 1)


def to_grayscale(clip: torch.Tensor, luma: tuple[float, float, float] = RGB_LUMA) -> torch.Tensor:
    """Weigh the three channels of a floating-point clip ``(3, T, H, W)`` to its luma ``(1, T, H, W)``.

    Raises:
        ValueError: when the clip has not three channels.
    """
    if clip.shape[0] != 3:
        raise ValueError(f"A color clip must be (3, T, H, W), found {tuple(clip.shape)}.")
    gray = clip[0] * luma[0]
    return gray.add_(clip[1], alpha=luma[1]).add_(clip[2], alpha=luma[2]).unsqueeze(0)


def adjust_brightness(clip: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply a floating-point clip; the result is not clipped."""
    return clip * factor


def adjust_contrast(clip: torch.Tensor, factor: float, luma: tuple[float, float, float] = RGB_LUMA) -> torch.Tensor:
    """Move the frames of a floating-point clip ``(3, T, H, W)`` to (below 1) or from their mean luma; not clipped."""
    return torch.lerp(to_grayscale(clip, luma).mean((-2, -1), keepdim=True), clip, factor)


def adjust_saturation(clip: torch.Tensor, factor: float, luma: tuple[float, float, float] = RGB_LUMA) -> torch.Tensor:
    """Move the pixels of a floating-point clip ``(3, T, H, W)`` to (below 1) or from their luma; not clipped."""
    return torch.lerp(to_grayscale(clip, luma), clip, factor)


def blur_clip(clip: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur the frames of a floating-point clip ``(..., H, W)`` with a Gaussian of ``sigma`` pixels, cut at 4 sigma.

    Rows and columns are blurred by one matrix product each: on a CPU several times faster than a depthwise
    convolution. At the border the weights inside the frame are normalized.
    """

    def weights(size: int) -> torch.Tensor:
        position = torch.arange(size, dtype=clip.dtype, device=clip.device)
        exponent = -((position[:, None] - position) / sigma).square() / 2
        return torch.softmax(exponent.masked_fill(exponent < -8, -math.inf), dim=1)

    return weights(clip.shape[-2]) @ clip @ weights(clip.shape[-1]).T


class RandClipTransform(RandomizableTransform):
    """Base of random transforms that treat all frames of a clip alike.

    It takes a clip ``(C, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, and gives a floating-point one
    (float32 for uint8) without changing its input; in a batch ``(B, C, T, H, W)`` each clip has its own draws. Random
    numbers come from ``self.R`` on the CPU, so that the device of the clip makes no difference to them.

    Args:
        prob: probability that a clip is transformed.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Transform a clip ``(C, T, H, W)``, or each clip of a batch ``(B, C, T, H, W)``.

        Raises:
            TypeError: when the clip is neither uint8 nor floating point.
            ValueError: when it has another number of dimensions.
        """
        if clip.ndim == 5:
            return torch.stack([self(item) for item in clip])
        if clip.ndim != 4:
            expected = "a clip (C, T, H, W) or a batch (B, C, T, H, W)"
            raise ValueError(f"{type(self).__name__} expects {expected}, found {tuple(clip.shape)}.")
        self.randomize(clip)
        return self.apply(clip) if self._do_transform else to_float(clip)

    @abstractmethod
    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Transform one clip ``(C, T, H, W)`` with what ``randomize`` drew."""


class ClipTransformd(MapTransform):
    """Base of the dictionary versions; they take the keys, then the arguments of their array version.

    Args:
        keys: keys of the clips.
        args: arguments of ``array_transform``.
        allow_missing_keys: do not fail when a key is missing.
        kwargs: keyword arguments of ``array_transform``.
    """

    array_transform: ClassVar[type[Transform]]
    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = self.array_transform(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the clips at ``keys``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


class RandClipTransformd(Randomizable, ClipTransformd):
    """Base of the dictionary versions of random transforms: the clips at all keys have the same draws."""

    array_transform: ClassVar[type[Randomizable]]

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandClipTransformd:
        """Seed this transform and its array version; see MONAI's ``Randomizable``."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the clips at ``keys``; all else stays."""
        d = dict(data)
        state = self.transform.R.get_state()
        for key in self.key_iterator(d):
            self.transform.R.set_state(state)
            d[key] = self.transform(d[key])
        return d
