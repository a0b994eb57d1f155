# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.utils import ensure_tuple_rep

from endofm_monai.transforms.clip_transform import RandClipTransform, RandClipTransformd
from endofm_monai.transforms.functional import to_float
from endofm_monai.transforms.resized_crop import draw_crop

__all__ = ["RandAffineClip", "RandAffineClipd"]


class RandAffineClip(RandClipTransform):
    """Crop, rotate, mirror and resize a clip, alike in all frames, in one resampling.

    A crop is drawn as in :class:`RandResizedCropClip` and turned about its center. What lies outside the frame
    becomes black, like the border of an endoscope's picture.

    Args:
        size: height and width of the result in pixels, or one number for both.
        scale: smallest and largest share of the frame's area in the crop.
        ratio: smallest and largest change of the crop's ratio of width to height, relative to that of the frame; the
            crop is stretched to ``size``.
        degrees: largest angle of rotation, drawn uniformly to both sides.
        flip_prob: probability that the clip is mirrored from left to right.
        vertical_flip_prob: probability that it is mirrored from top to bottom.

    Example::

        affine = RandAffineClip(224).set_random_state(seed=0)
        clip = affine(torch.zeros(3, 8, 288, 384, dtype=torch.uint8))  # (3, 8, 224, 224), float32
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.6, 1.0),
        ratio: tuple[float, float] = (0.8, 1.25),
        degrees: float = 15.0,
        flip_prob: float = 0.5,
        vertical_flip_prob: float = 0.0,
    ) -> None:
        super().__init__(prob=1.0)
        self.size = ensure_tuple_rep(size, 2)
        self.scale = scale
        self.ratio = ratio
        self.degrees = degrees
        self.flip_prob = flip_prob
        self.vertical_flip_prob = vertical_flip_prob

    def randomize(self, data: torch.Tensor) -> None:
        """Draw crop, angle and mirroring for the frames of ``data``."""
        height, width = data.shape[-2:]
        ratio = (self.ratio[0] * width / height, self.ratio[1] * width / height)
        self.box = draw_crop((height, width), self.scale, ratio, self.R)
        self.angle = math.radians(self.R.uniform(-self.degrees, self.degrees))
        self.flips = tuple(-1 if self.R.random() < prob else 1 for prob in (self.flip_prob, self.vertical_flip_prob))

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Resample a clip bilinearly, antialiased where it shrinks."""
        frames = to_float(clip).transpose(0, 1)
        height, width = (  # of the whole frame, such that the crop gets the size of the result
            round(full * min(1.0, new / old))
            for full, new, old in zip(clip.shape[-2:], self.size, self.box[2:], strict=True)
        )
        frames = F.interpolate(frames, (height, width), mode="bilinear", antialias=True)
        return self._sample(frames, clip.shape[-2:], "bilinear").transpose(0, 1)

    def apply_to_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Resample masks ``(1, T, H, W)`` of the clip by the same draws; the nearest value counts, the type stays."""
        return self._sample(masks.transpose(0, 1).float(), masks.shape[-2:], "nearest").transpose(0, 1).to(masks.dtype)

    def _sample(self, frames: torch.Tensor, frame_size: Sequence[int], mode: str) -> torch.Tensor:
        """Take the crop out of frames ``(T, C, H, W)``, whose crop was drawn for ``frame_size``."""
        full_height, full_width = frame_size
        top, left, height, width = self.box
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        half_width, half_height = self.flips[0] * width, self.flips[1] * height
        center = (2 * left + width) / full_width - 1, (2 * top + height) / full_height - 1
        matrix = [  # from a place in the result to one in the frame, both in [-1, 1]
            [half_width * cos / full_width, -half_height * sin / full_width, center[0]],
            [half_width * sin / full_height, half_height * cos / full_height, center[1]],
        ]
        grid = F.affine_grid(frames.new_tensor([matrix]), [1, 1, *self.size], align_corners=False)
        return F.grid_sample(frames, grid.expand(len(frames), -1, -1, -1), mode=mode, align_corners=False)


class RandAffineClipd(RandClipTransformd):
    """Dictionary version of :class:`RandAffineClip`: clips and their masks together.

    Args:
        keys: keys of the clips; all of equal size, as are the masks.
        mask_keys: keys of the masks; items without them are fine.
        args: arguments of :class:`RandAffineClip`.
        allow_missing_keys: do not fail when a clip is missing.
        kwargs: keyword arguments of :class:`RandAffineClip`.
    """

    array_transform = RandAffineClip

    def __init__(
        self,
        keys: KeysCollection,
        mask_keys: KeysCollection = (),
        *args: Any,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, *args, allow_missing_keys=allow_missing_keys, **kwargs)
        self.mask_keys = (mask_keys,) if isinstance(mask_keys, str) else tuple(mask_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform clips and masks; all else stays."""
        d = super().__call__(data)
        for key in self.mask_keys:
            if key in d:
                d[key] = self.transform.apply_to_masks(d[key])
        return d
