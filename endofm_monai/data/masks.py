# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from skimage.measure import label, regionprops

from endofm_monai.data.readers.base import ClipReadError, clip_images, natural_key
from endofm_monai.data.readers.images import as_shown, open_picture, picture_pages

__all__ = ["check_mask", "mask_boxes", "mask_files", "read_mask"]

# Lossy masks differ from 0 and 255 along the outline; a picture or a map of classes does so everywhere.
_MAX_GRAY_SHARE = 0.1
_NOISE = 8  # levels by which JPEG changes even areas


def mask_files(masks: Any, clip: Any) -> Sequence[Any]:
    """Give the mask files of a clip's frames: one list of them, a single one, or those of a folder in natural order.

    A folder's masks that have names or numbers of frames, but not each that of its own, are a ``ClipReadError``.
    """
    if not isinstance(masks, (str, os.PathLike)):
        return masks
    files, frames = clip_images(masks), clip_images(clip)
    names: list[Any]
    expected: list[Any]
    # names in parts, of which 7 and 007 are one
    names, expected = ([tuple(natural_key(path.stem)[0]) for path in paths] for paths in (files, frames))
    if set(names).isdisjoint(expected):  # as 7_mask: their numbers tell, unless they are counted from another one on
        names, expected = ([_number(name) for name in each] for each in (names, expected))
        is_numbered = 2 * len(set(names) & set(expected)) > len(frames)
        if not is_numbered or len({name - other for name, other in zip(names, expected, strict=False)}) == 1:
            return files
    if len(frames) > 1:  # a single file may be a stack
        for frame, mask, name, other in zip(frames, files, names, expected, strict=False):
            if name != other:
                raise ClipReadError(
                    f"{mask}: is where the mask of {frame} is expected, in natural order, but others have the names or "
                    "numbers of their frames; name all so, or list the masks"
                )
    return files


def _number(stem: tuple[str | int, ...]) -> int:
    return next((part for part in reversed(stem) if isinstance(part, int)), -1)


def read_mask(path: str | os.PathLike, clean: bool = False) -> np.ndarray:
    """Read a mask of foreground and background, bool ``(H, W)``: one rule for training, preparation and every format.

    Background is 0 or black. Foreground is white (255, or 65535 of 16 bits) or 1, or any one color, as of a palette.
    Colors tell it, not transparency: what that alone shows is refused, and so are colors of more than 8 bits. Values
    between, which JPEG compression or smoothing left in a gray mask along the outline, are split at 127, but refused
    where it has to be ``clean``. Where it is not clear which values are foreground, a ``ClipReadError`` names them.
    """
    with open_picture(path, "mask") as opened:
        pages = [page for page, _ in picture_pages(opened)]
        if len(pages) != 1:
            raise ClipReadError(f"{path}: holds {len(pages)} pictures, but a mask is one")
        opened.seek(pages[0])
        bits = max(getattr(opened, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (8,)))
        if not opened.mode.startswith(("I", "F")) and (bits > 8 or ";16" in str(getattr(opened, "tile", ""))):
            raise ValueError("its colors have 16 bits, of which Pillow reads 8; write it with 8, or as 16-bit gray")
        image = as_shown(opened)
        places = np.asarray(image) if image.mode == "P" else None
        is_number = image.mode in ("L", "F") or image.mode.startswith("I")
        pixels = np.asarray(image if is_number else image.convert("RGB"))
        if black := _jpeg_black(opened):
            pixels = np.where(pixels <= black, 0, pixels)
        full = {255} if hasattr(opened, "quantization") else {1, 255, 65535}  # JPEG does not keep 1 apart from 0
        alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else np.full(1, 255)
    channels = np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[None]
    is_gray = all(np.array_equal(channels[0], channel) for channel in channels[1:])
    codes = (
        channels[0] if is_gray else sum(channel.astype(np.int32) << 16 - 8 * i for i, channel in enumerate(channels))
    )
    found = np.flatnonzero(np.bincount(codes.ravel())) if codes.dtype == np.uint8 else np.unique(codes)
    is_told_apart = places is None or len(np.unique(places)) == len(found)  # else two colors of a palette are the same
    visible = np.unique(alpha)
    is_told_apart &= len(visible) == 1 or len(found) > 1  # else alpha alone shows something
    is_told_apart &= visible[0] > 0 or not codes[alpha == 0].any()  # else a color is there and not to be seen
    foreground = found[found != 0]
    if is_told_apart and len(foreground) <= 1 and (not is_gray or set(foreground.tolist()) <= full):
        return codes != 0
    level = channels.max(0)
    between = (level > _NOISE) & (level < 255 - _NOISE)
    gray = (codes != codes.flat[level.argmin()]) & (level < 255 - _NOISE)
    inside = (codes[1:, 1:] == codes[:-1, 1:]) & (codes[1:, 1:] == codes[1:, :-1]) & gray[1:, 1:]
    is_class = 2 * inside.sum() > gray.sum()  # even areas of gray; noise and outlines differ from pixel to pixel
    is_class |= found.max() == 1 or set(found.tolist()) == {1, 255}  # of which each alone is foreground
    is_outline = between.mean() <= _MAX_GRAY_SHARE and (255 - _NOISE <= level.max() <= 255 or level.max() <= _NOISE)
    if not clean and is_told_apart and (level - channels.min(0)).max() <= _NOISE and is_outline and not is_class:
        return level > 127
    holds = ", ".join(str(code) if is_gray else f"#{code:06x}" for code in found[:8].tolist())
    holds += ", ..." if len(found) > 8 else ""
    holds += ", which JPEG does not keep apart" if full == {255} and found.max() == 1 else ""
    holds += f" of opacity {', '.join(map(str, visible[:8]))}" if len(visible) > 1 else ""
    raise ClipReadError(f"{path}: a mask must hold 0 and 255, 0 and 1, or black and one color, but holds {holds}")


def check_mask(mask: np.ndarray, height: int, width: int, path: Any) -> None:
    """Refuse a mask of another size than its frame has."""
    if mask.shape != (height, width):
        raise ClipReadError(f"{path}: has {'x'.join(map(str, mask.shape))} values, its frame {height}x{width} pixels")


def _jpeg_black(image: Image.Image) -> int:
    """Give the level of black in a JPEG file: at some qualities, as 70, the steps of its brightness miss 0."""
    step = next(iter(getattr(image, "quantization", {}).values()), [1])[0]
    return max(0, int(128.5 - round(1024 / step) * step / 8))


def mask_boxes(mask: np.ndarray, min_area: int = 30) -> list[list[int]]:
    """Give a box ``[x1, y1, x2, y2]``, x2 and y2 exclusive, for each separate region of a mask, bool ``(H, W)``.

    Regions of less than ``min_area`` pixels are specks.
    """
    boxes = (region.bbox for region in regionprops(label(mask, connectivity=2)) if region.area >= min_area)
    return [[int(x1), int(y1), int(x2), int(y2)] for y1, x1, y2, x2 in boxes]
