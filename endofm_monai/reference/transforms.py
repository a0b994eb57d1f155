# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0
"""What the published code does to clips otherwise than it means, or than the corrected defaults do."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.apps.detection.transforms.box_ops import flip_boxes
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor, resize, to_pil_image

from endofm_monai import transforms as corrected
from endofm_monai.data import ClipInfo, RandomWindow, SupportSampler, WindowPlan
from endofm_monai.transforms.base import dictionary_version, to_float
from endofm_monai.transforms.fit_frame import FrameMap
from endofm_monai.transforms.geometry import central_box, draw_box
from endofm_monai.utils import PathLike

__all__ = [
    "RandReferenceInputd", "ReferenceAugmentViews", "ReferenceAugmentViewsd", "ReferenceBGRClip", "ReferenceBGRClipd",
    "ReferenceColorJitterClip", "ReferenceFitClip", "ReferenceGrayscaleClip", "ReferenceInput",
    "ReferenceLoadMasksd", "ReferenceRandFitClip", "ReferenceRandFitClipd", "ReferenceRandScaleCropClip",
    "ReferenceRandScaleCropClipd", "ReferenceRandomWindow", "ReferenceResizedCropClip", "ReferenceScaleCropClip",
    "ReferenceScaleCropClipd", "ReferenceSupportSampler", "ReferenceWindowPlan",
]  # fmt: skip

DETECTION_MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, 0..255
BGR_LUMA = (0.114, 0.587, 0.299)  # for BGR clips, but applied to RGB ones
BILINEAR = Image.Resampling.BILINEAR


class ReferenceWindowPlan(WindowPlan):
    """Frames spread over the whole window even where the video is shorter: its last frame is then repeated."""

    def span(self, info: ClipInfo) -> float:
        return self.window_frames(info)


class ReferenceRandomWindow(ReferenceWindowPlan, RandomWindow):
    """The same at a random place."""


class ReferenceSupportSampler(SupportSampler):
    """Supports from all places of the window, also beyond an end of the video, whose frame repeats. Only offline."""

    def __post_init__(self) -> None:
        if self.mode != "offline":
            raise ValueError(f'Supports as published need the `mode` "offline", but got {self.mode!r}.')

    def supports(self, index: int, frames: int, random: Any = None) -> list[int]:
        random = random or np.random.default_rng([self.seed, index])
        distances, half = np.arange(1, self.window + 1), self.num_supports // 2
        before, after = random.permutation(index - distances), random.permutation(index + distances)
        places = np.concatenate([before[:half], after[: self.num_supports - half]])
        return places.clip(max(index - self.window, 0), frames - 1).tolist()


class ReferenceLoadMasksd(corrected.LoadMasksd):
    """255 is foreground, any other value background."""

    def read(self, path: PathLike) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) == 255


class ReferenceResizedCropClip(corrected.RandResizedCropClip):
    """Crops of which all ten tries are made, resized without antialiasing and without clipping to ``[0, 1]``.

    The corner is that of the last box that fits but height and width are those of the tenth try, so that the box may
    be cut at the border and lose its ratio (21 % of boxes at scale (0.4, 1) in square frames, more in wider ones).
    """

    def randomize(self, data: torch.Tensor) -> None:
        (rows, columns), corner = data.shape[-2:], None
        for _ in range(10):
            height, width = draw_box((rows, columns), self.scale, self.ratio, self.R)
            if height <= rows and width <= columns:
                corner = self.R.randint(rows - height + 1), self.R.randint(columns - width + 1)
        if corner is None:
            self.box = central_box((rows, columns), self.ratio)
        else:
            self.box = *corner, min(height, rows - corner[0]), min(width, columns - corner[1])

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return resize_published(self.cut(clip), self.size)


def resize_published(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Resize all frames to a square bicubically, not antialiased, keeping what leaves the range."""
    return F.interpolate(to_float(clip), (size, size), mode="bicubic", align_corners=False)


class ReferenceColorJitterClip(corrected.RandColorJitterClip):
    """Luma with the weights of red and blue swapped, and no clipping."""

    luma = BGR_LUMA

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        return self.change(clip)


class ReferenceGrayscaleClip(corrected.RandGrayscaleClip):
    """Luma with the weights of red and blue swapped."""

    luma = BGR_LUMA


class ReferenceAugmentViews(corrected.RandAugmentViews):
    """Views with the published crops and colors, not blurred or solarized: the code's functions return their input."""

    crop = ReferenceResizedCropClip
    color_jitter = ReferenceColorJitterClip
    grayscale = ReferenceGrayscaleClip
    has_blur = False


class ReferenceRandScaleCropClip(corrected.RandScaleCropClip):
    """Resized without antialiasing, and the last row or column is never taken."""

    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        clip = resize(to_float(clip), [self.length], antialias=False)
        top, left = (int(share * (side - self.size)) for share, side in zip(self.corner, clip.shape[-2:], strict=True))
        return clip[..., top : top + self.size, left : left + self.size]


class ReferenceScaleCropClip(corrected.ScaleCropClip):
    """The leftmost or topmost square of a clip, by a slip in a configuration; not antialiased."""

    def __call__(self, clip: torch.Tensor, crop: int = 0, num_crops: int = 1) -> torch.Tensor:
        return resize(to_float(clip), [self.size], antialias=False)[..., : self.size, : self.size]


class ReferenceFitClip(corrected.FitClip):
    """Resized to ``size`` (640) whatever the ratio of the sides."""

    def frame_map(self, height: int, width: int) -> FrameMap:
        rows, columns = self.size
        return FrameMap((columns / width, rows / height), (0.0, 0.0), (columns, rows))


class ReferenceFrameMap(FrameMap):
    """Boxes are mirrored by ``x' = width - 1 - x``, one pixel off."""

    def _flip(self, box: torch.Tensor) -> torch.Tensor:
        return flip_boxes(box, [side - 1 for side in self.size], self.flips)


class ReferenceRandFitClip(corrected.RandFitClip):
    """Squeezed as by :class:`ReferenceFitClip`, with boxes that are mirrored one pixel off."""

    fit_transform = ReferenceFitClip
    map_type = ReferenceFrameMap


class ReferenceBGRClip(Transform):
    """Channels and range of the published detection: blue, green and red, ``0..255``, less their mean over ImageNet."""

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """From RGB ``(3, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, to floating point."""
        clip = to_float(clip).flip(0) * 255
        return clip - clip.new_tensor(DETECTION_MEAN).view(-1, 1, 1, 1)


@dataclass(eq=False)
class ReferenceInput(Transform):
    """Segmentation, frame by frame: BGR, stretched to 0..255, resized to a square, stretched again to [-1, 1].

    A constant frame, of which the published code makes NaN, becomes -1.
    """

    size: int = 224

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """From uint8 RGB ``(3, T, H, W)`` to float32 ``(3, T, size, size)``."""
        frames = [self.image(frame).resize((self.size, self.size), BILINEAR) for frame in clip.unbind(1)]
        return torch.stack([self.tensor(frame) for frame in frames], 1)

    def image(self, frame: torch.Tensor) -> Image.Image:
        """The image, from which the published code goes on, of a frame ``(3, H, W)``."""
        return to_pil_image((_stretch(frame.flip(0).float()) * 255).to(torch.uint8))

    def tensor(self, image: Image.Image) -> torch.Tensor:
        """What the network sees of an image: float32 ``(3, H, W)``."""
        return _stretch(pil_to_tensor(image).float()) * 2 - 1


def _stretch(frame: torch.Tensor) -> torch.Tensor:
    """Bring the values of a frame to [0, 1]; a constant one becomes 0."""
    low, high = frame.aminmax()
    return (frame - low) / (high - low).clamp(min=torch.finfo(frame.dtype).eps)


class RandReferenceInputd(Randomizable, MapTransform):
    """:class:`ReferenceInput` of a clip with its masks 0/1 ``(1, T, H, W)``.

    With ``augment`` each frame is resized to 8/7 of ``size``, cropped, half of the time mirrored, and rotated by up to
    5 degrees for itself, so that the clip is torn in time.
    """

    def __init__(self, keys: KeysCollection, mask_key: str, size: int = 224, augment: bool = True) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.prepare = ReferenceInput(size)
        self.augment = augment

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            frames = zip(d[key].unbind(1), d[self.mask_key].unbind(1), strict=True)
            placed = [self._place(self.prepare.image(frame), to_pil_image(mask)) for frame, mask in frames]
            d[key] = torch.stack([self.prepare.tensor(image) for image, _ in placed], 1)
            d[self.mask_key] = torch.stack([pil_to_tensor(mask) for _, mask in placed], 1)
        return d

    def _place(self, *images: Image.Image) -> list[Image.Image]:
        """Resize and augment a frame, and its mask by the same draws."""
        size, filters = self.prepare.size, (BILINEAR, Image.Resampling.NEAREST)
        before = size * 8 // 7 if self.augment else size
        placed = [image.resize((before, before), kind) for image, kind in zip(images, filters, strict=True)]
        if not self.augment:
            return placed
        top, left = self.R.randint(before - size + 1, size=2).tolist()
        mirror, angle = self.R.random() < 0.5, self.R.uniform(-5, 5)
        placed = [image.crop((left, top, left + size, top + size)) for image in placed]
        placed = [ImageOps.mirror(image) if mirror else image for image in placed]
        return [image.rotate(angle, kind) for image, kind in zip(placed, filters, strict=True)]


ReferenceAugmentViewsd = dictionary_version(ReferenceAugmentViews, corrected.RandAugmentViewsd)
ReferenceBGRClipd = dictionary_version(ReferenceBGRClip)
ReferenceRandFitClipd = dictionary_version(ReferenceRandFitClip, corrected.RandFitClipd)
ReferenceRandScaleCropClipd = dictionary_version(ReferenceRandScaleCropClip)
ReferenceScaleCropClipd = dictionary_version(ReferenceScaleCropClip, corrected.ScaleCropClipd)
