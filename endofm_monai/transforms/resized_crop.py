# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import resize_to_square

__all__ = ["RandResizedCropClip", "RandResizedCropClipd", "draw_crop"]


def draw_crop(
    frame_size: Sequence[int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    random_state: np.random.RandomState,
    reference: bool = False,
) -> tuple[int, int, int, int]:
    """Draw a box whose area is uniform in ``scale`` and whose width-to-height ratio is log-uniform in ``ratio``.

    Ten tries are made to fit one into the frame; after them comes the largest central box with an allowed ratio.

    Args:
        frame_size: height and width of the frame in pixels.
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest ratio of width to height.
        random_state: where random numbers are drawn from.
        reference: make all ten tries, as the published code does. The corner is then that of the last box that fits
            but height and width are those of the tenth try, so that the box may be cut at the border and lose its
            ratio (21 % of boxes at scale (0.4, 1) in square frames, more in wider ones).

    Returns:
        top, left, height and width in pixels, inside the frame.
    """
    height, width = frame_size
    corner = None
    for _ in range(10):
        area = height * width * random_state.uniform(*scale)
        aspect = math.exp(random_state.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_height, box_width = (max(1, round(math.sqrt(x))) for x in (area / aspect, area * aspect))
        if box_height <= height and box_width <= width:
            corner = random_state.randint(height - box_height + 1), random_state.randint(width - box_width + 1)
            if not reference:
                break
    if corner is None:
        box_height = min(height, max(1, round(width / ratio[0])))
        box_width = min(width, max(1, round(height * ratio[1])))
        corner = (height - box_height) // 2, (width - box_width) // 2
    top, left = corner
    return top, left, min(box_height, height - top), min(box_width, width - left)


class RandResizedCropClip(RandClipTransform):
    """Cut a random box out of a clip, the same from all frames, and resize it to a square.

    Args:
        size: height and width of the result in pixels.
        scale: smallest and largest share of the frame's area in the box.
        ratio: smallest and largest ratio of the box's width to its height.
        reference_crop: crop as the published code does: boxes that may be cut at the border (see :func:`draw_crop`),
            resized without antialiasing and without clipping to ``[0, 1]``.

    Example::

        crop = RandResizedCropClip(96, scale=(0.05, 0.4)).set_random_state(seed=0)
        crop(torch.zeros(3, 8, 256, 320, dtype=torch.uint8)).shape  # (3, 8, 96, 96), float32
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.4, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        reference_crop: bool = False,
    ) -> None:
        super().__init__(prob=1.0)
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.reference_crop = reference_crop

    def randomize(self, data: torch.Tensor) -> None:
        """Draw the box for the frames of ``data``."""
        self.box = draw_crop(data.shape[-2:], self.scale, self.ratio, self.R, self.reference_crop)

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Cut and resize."""
        top, left, height, width = self.box
        return resize_to_square(clip[..., top : top + height, left : left + width], self.size, self.reference_crop)


class RandResizedCropClipd(RandClipTransformd):
    """Dictionary version of :class:`RandResizedCropClip`; the clips must be equally large."""

    array_transform = RandResizedCropClip
