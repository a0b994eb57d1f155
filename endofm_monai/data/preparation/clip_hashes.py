# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from endofm_monai.data.clip_reader import ClipReader
from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.content_area import ContentArea, fit_content_area

__all__ = ["BITS", "FLIPS", "SCALES", "ClipHashes", "hash_clip", "read_pictures"]

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
