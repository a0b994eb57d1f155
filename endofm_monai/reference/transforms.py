# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import TransformBackends
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from endofm_monai.transforms.base import ClipTransformd, to_float

__all__ = ["RandReferenceInput", "RandReferenceInputd", "ReferenceBGRClip", "ReferenceBGRClipd"]

MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, 0..255


class ReferenceBGRClip(Transform):
    """Give a clip the channel order and range of the published detection, which its pre-training did not have.

    Channels become blue, green and red, ``0..255``, less their mean over ImageNet.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """From RGB ``(3, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, to floating point."""
        clip = to_float(clip).flip(0) * 255
        return clip - clip.new_tensor(MEAN).view(-1, 1, 1, 1)


class ReferenceBGRClipd(ClipTransformd):
    """Dictionary version of :class:`ReferenceBGRClip`."""

    array_transform = ReferenceBGRClip


class RandReferenceInput(Randomizable, Transform):
    """Prepare a clip for segmentation as the published code does, for comparison with published numbers only.

    Frame by frame: channels in the order blue, green, red; range stretched to 0..255; resized; stretched again, to
    [-1, 1]. With ``augment`` each frame is cropped, mirrored and rotated for itself, so that a clip is torn in time.
    A constant frame, of which the published code makes NaN, becomes -1.

    Args:
        size: height and width of the result in pixels; 224 as published.
        augment: resize to 8/7 of ``size``, cut a square out at random, mirror half of the frames and rotate by up to
            5 degrees.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, size: int = 224, augment: bool = False) -> None:
        self.size = size
        self.augment = augment

    def __call__(
        self, clip: torch.Tensor, masks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Prepare.

        Args:
            clip: uint8 RGB ``(3, T, H, W)``.
            masks: 0/1 ``(1, T, H, W)``, which are resized likewise if there are any.

        Returns:
            float32 ``(3, T, size, size)`` in [-1, 1], and the masks ``(1, T, size, size)``.
        """
        frames, placed_masks = [], []
        for index in range(clip.shape[1]):
            images = [to_pil_image((_stretch(clip[:, index].flip(0).float()) * 255).to(torch.uint8))]
            if masks is not None:
                images.append(to_pil_image(masks[:, index]))
            frame, *mask = map(pil_to_tensor, self._place(*images))
            frames.append(_stretch(frame.float()) * 2 - 1)
            placed_masks += mask
        return torch.stack(frames, 1), torch.stack(placed_masks, 1) if placed_masks else None

    def _place(self, *images: Image.Image) -> list[Image.Image]:
        """Resize and augment a frame, and its mask by the same draws."""
        before = self.size * 8 // 7 if self.augment else self.size
        filters = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
        placed = [image.resize((before, before), kind) for image, kind in zip(images, filters, strict=False)]
        if self.augment:
            top, left = self.R.randint(before - self.size + 1, size=2).tolist()
            mirror, angle = self.R.random() < 0.5, self.R.uniform(-5, 5)
            placed = [image.crop((left, top, left + self.size, top + self.size)) for image in placed]
            placed = [ImageOps.mirror(image) if mirror else image for image in placed]
            placed = [image.rotate(angle, kind) for image, kind in zip(placed, filters, strict=False)]
        return placed


def _stretch(frame: torch.Tensor) -> torch.Tensor:
    """Bring the values of a frame to [0, 1]; a constant one becomes 0."""
    low, high = frame.aminmax()
    return (frame - low) / (high - low).clamp(min=torch.finfo(frame.dtype).eps)


class RandReferenceInputd(Randomizable, MapTransform):
    """Dictionary version of :class:`RandReferenceInput`.

    Args:
        keys: key of the clip.
        mask_key: key of its masks; None leaves them as they are.
        size: see :class:`RandReferenceInput`.
        augment: likewise.
    """

    backend = RandReferenceInput.backend

    def __init__(
        self, keys: KeysCollection, mask_key: str | None = None, size: int = 224, augment: bool = False
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.transform = RandReferenceInput(size, augment)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandReferenceInputd:
        """Seed this transform and its array version; see MONAI's ``Randomizable``."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Prepare the clip; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            masks = d[self.mask_key] if self.mask_key is not None else None
            d[key], masks = self.transform(d[key], masks)
            if self.mask_key is not None:
                d[self.mask_key] = masks
        return d
