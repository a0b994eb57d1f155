# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = [
    "BGR_LUMA",
    "RGB_LUMA",
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
