# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import imagehash
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template

from endofm_monai.data.readers.base import ClipReader
from endofm_monai.data.readers.open_clip import open_clip
from endofm_monai.preparation.content_area import ContentArea, fit_content_area

__all__ = ["BITS", "FLIPS", "SCALES", "ClipHashes", "hash_clip", "picture_likeness", "read_pictures"]

_HASH_SIZE = 16
BITS = _HASH_SIZE**2
"""Bits of a hash: whether a frame, brought to 17 x 16 pixels, gets brighter from each one to the next on its right."""
SCALES = (1.0, 0.9, 0.8)
"""Shares of width and height, in the middle of a frame, that are hashed, so that cropped copies are found."""
FLIPS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)
"""Mirror images that are hashed."""

# Frames that are next to black, white or blurred out have hashes made of noise, which match by chance.
_MIN_CONTRAST = 8.0
_SIDE = 128  # pixels
_CHUNK = 32  # frames read at a time
_SHORT = 128  # a clip of fewer frames is hashed frame by frame, as copies of a part may start at any of them


@dataclass(frozen=True)
class ClipHashes:
    """Perceptual hashes of frames of a clip.

    Args:
        clip: what the clip is called in reports.
        group: set and section that it belongs to.
        image: what to open to see it.
        area: where the endoscope's picture is in its frames, brought to 128 x 128 pixels.
        frames: int array ``(N,)``, the frames that were hashed.
        bits: uint8 array ``(S, F, N, B / 8)``, for each of the scales and flips the B bits of each frame, packed.
    """

    clip: str
    group: str
    image: Any
    area: ContentArea
    frames: np.ndarray
    bits: np.ndarray


def hash_clip(clip: str, group: str, image: Any, per_second: float = 5.0) -> ClipHashes:
    """Compute perceptual hashes of frames of a clip, inside of the endoscope's black border.

    Args:
        clip: what to call it.
        group: set and section that it belongs to.
        image: what :func:`endofm_monai.data.open_clip` opens.
        per_second: frames to hash a second of a longer video.

    Returns:
        the hashes of all frames that show something.

    Raises:
        ClipReadError: when the clip cannot be read.
    """
    with open_clip(image) as reader:
        info = reader.probe()
        step = 1 if info.frames < _SHORT else max(1, round(info.fps / per_second))
        frames = list(range(0, info.frames, step))
        smalls = _read_small(reader, frames)
    area = fit_content_area(np.max(smalls, (0, 3)))
    pictures = [_inside(small, area) for small in smalls]
    shown = [place for place, picture in enumerate(pictures) if np.asarray(picture).std() >= _MIN_CONTRAST]
    hashes = [
        [[_hash(view, flip) for view in (_middle(pictures[place], scale) for place in shown)] for flip in FLIPS]
        for scale in SCALES
    ]
    bits = np.array(hashes, bool).reshape(len(SCALES), len(FLIPS), len(shown), BITS)
    return ClipHashes(clip, group, image, area, np.array(frames)[shown], np.packbits(bits, axis=-1))


def read_pictures(clip: ClipHashes, frames: Sequence[int]) -> list[Image.Image]:
    """Read frames of a hashed clip, as gray pictures of at most 128 x 128 pixels without the border."""
    with open_clip(clip.image) as reader:
        return [_inside(small, clip.area) for small in _read_small(reader, frames)]


def _read_small(reader: ClipReader, frames: Sequence[int]) -> list[np.ndarray]:
    """Read frames, brought to one size whatever the copy's, so that borders are found at the same place."""
    smalls = []
    for start in range(0, len(frames), _CHUNK):
        for frame in reader.read(frames[start : start + _CHUNK]).permute(1, 2, 3, 0).numpy():
            image = Image.fromarray(np.ascontiguousarray(frame))
            smalls.append(np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX)))
    return smalls


def _inside(small: np.ndarray, area: ContentArea) -> Image.Image:
    """Take the endoscope's picture out of a frame, in gray; what is outside of it gets its mean."""
    gray = np.asarray(Image.fromarray(small).convert("L")).copy()
    gray[~area.mask] = round(gray[area.mask].mean())
    return Image.fromarray(gray).crop(area.box)


def _middle(picture: Image.Image, scale: float) -> Image.Image:
    left, top = (round(side * (1 - scale) / 2) for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


def _hash(picture: Image.Image, flip: Image.Transpose | None) -> np.ndarray:
    return imagehash.dhash(picture if flip is None else picture.transpose(flip), _HASH_SIZE).hash.ravel()


_COMPARED_SIDE = 64  # pixels
_MARGIN = 10  # pixels of the first picture that may be missing in the second one, on each side
_SCALES = (0.84, 0.92, 1.0, 1.08, 1.17)  # of the second picture, for copies that are cropped or have another border
_MAX_STRETCH = 1.2
_BLUR = 6.4  # pixels: coarser structure, as a dark lumen in the middle, is alike in unrelated pictures


def picture_likeness(first: Image.Image, second: Image.Image) -> float:
    """Look for the middle of a picture in another one, at any place and several sizes.

    Args:
        first: a gray picture.
        second: a gray picture.

    Returns:
        the correlation of their details where they fit best, at most 1.
    """
    middle = _details(first, _COMPARED_SIDE, _COMPARED_SIDE)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    best = -1.0
    for across, down in product(_SCALES, _SCALES):
        if max(across / down, down / across) <= _MAX_STRETCH:
            whole = _details(second, round(_COMPARED_SIDE * across), round(_COMPARED_SIDE * down))
            best = max(best, float(match_template(whole, middle).max()))
    return best


def _details(picture: Image.Image, width: int, height: int) -> np.ndarray:
    image = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32)
    return image - gaussian_filter(image, _BLUR)
