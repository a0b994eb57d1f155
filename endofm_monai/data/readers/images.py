# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from endofm_monai.data.readers.base import (
    IMAGE_SUFFIXES,
    ClipInfo,
    ClipReader,
    ClipReadError,
    clip_images,
    clip_read_errors,
    has_suffix,
    likely_aspect,
)

__all__ = ["FramesReader", "as_shown", "common_size", "open_picture", "picture_pages", "picture_size", "rgb_pixels"]

_PIXELS, _PIXELS_A_BYTE = 2**24, 2**13  # that a picture may have: so many anyway (an empty mask of 4K has 568 bytes)
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "min": 60.0}
_SIGNS = "_-"
_OF_MASKS = tuple(sign + word for sign in _SIGNS for word in ("mask", "gt", "label", "seg", "segmentation"))
_PAGED = ("TIFF", "WEBP", "PNG", "GIF")  # in others, as MPO, what follows is a view or a thumbnail of the first picture


@contextmanager
def open_picture(path: str | os.PathLike, kind: str = "image") -> Iterator[Image.Image]:
    """Open a picture; whatever is wrong with it, then or while it is used, is a ``ClipReadError`` that names it."""
    # Pillow maps a file that it opens by name into memory, and turned TIFF with the sides of what is shown.
    with clip_read_errors(path, f"is not a readable {kind}"), open(path, "rb") as file, Image.open(file) as image:
        size = os.stat(path).st_size
        if image.width * image.height > max(_PIXELS, _PIXELS_A_BYTE * size):
            raise ValueError(f"claims {image.width}x{image.height} pixels, more than its {size} bytes can hold")
        yield image


def as_shown(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data ask, and have 16-bit gray reach from black, 0, to white, 65535, also in TIFF."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    is_negative = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    if bits == 8 and tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 2:
        raise ValueError("its pixels are signed numbers of 8 bits, which have no known black")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if is_negative and image.mode == "F":
        raise ValueError("its white is 0, and its pixels, of type F, have no known black")
    if image.mode == "1" and is_negative and str(tags.get(ExifTags.Base.Software)).startswith("tifffile"):
        image = ImageChops.invert(image)  # tifffile says of all arrays of bools that white is 0
    if image.mode.startswith("I;16") and (is_negative or bits < 16):  # Pillow sees to that in 8 bits only
        levels = np.asarray(image).astype(np.uint32) * 65535 // (2**bits - 1)
        image = Image.fromarray((65535 - levels if is_negative else levels).astype(np.uint16))
    return image


def rgb_pixels(image: Image.Image, page: int = 0) -> np.ndarray:
    """Give the pixels of a page of a picture as it is shown, uint8 ``(H, W, 3)``."""
    image.seek(page)
    if isinstance(image, PngImageFile) and image.is_animated and (below := getattr(image, "_prev_im", None)):
        kept = below.copy()  # to be shown again where the page is taken away, but Pillow draws the page on it
        image.load()
        image._prev_im = kept
    if isinstance(image, TiffImageFile) and "'raw'" in str(image.tile):
        tags, bits = image.tag_v2, ExifTags.Base.BitsPerSample
        if tags.get(ExifTags.Base.PlanarConfiguration) == 2 and max(tags.get(bits, (1,))) > 8:  # Pillow mixes up bytes
            raise ValueError("its colors of 16 bits lie plane by plane; store them pixel by pixel, or compressed")
    image = as_shown(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # PIL would clip, not scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of type {image.mode} have no known range")
    return np.asarray(image.convert("RGB"))


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Give the width and height of a picture as it is shown."""
    with open_picture(path) as image:
        return as_shown(image).size


def common_size(paths: Iterable[str | os.PathLike]) -> tuple[int, int]:
    """Give the width and height that pictures have, all of them; a ``ClipReadError`` names one that has others."""
    (size, other), *more = {picture_size(path): path for path in paths}.items()
    for (width, height), path in more:
        found = f"{width}x{height} pixels (width x height), but {other} {size[0]}x{size[1]}"
        raise ClipReadError(f"{path}: has {found}; those of one size belong into a folder, or task, of their own")
    return size


def pixel_aspect(image: Image.Image) -> float:
    """Give width by height of a pixel as it is shown, by the resolution that a file, as FFmpeg writes it, states."""
    across, down = map(float, image.info.get("dpi") or (1, 1))  # pixels per length
    if image.info.get("jfif_unit") == 0 or "aspect" in image.info:  # of PNG, too, FFmpeg has it as a ratio of lengths
        down, across = map(float, image.info.get("aspect") or image.info["jfif_density"])
    if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:  # a quarter turn
        across, down = down, across
    return likely_aspect(down, across)


def picture_pages(image: Image.Image) -> Iterator[tuple[int, float]]:
    """Find the pages of a TIFF stack, or the frames of an animation, that are shown: number, and milliseconds.

    Thumbnails and masks in a TIFF file are none, nor is the picture that stands for an animated PNG where it cannot be
    played. Where the file breaks off there is one more page, which cannot be read.
    """
    if image.format not in _PAGED:
        yield 0, 0.0
        return
    stated = getattr(image, "n_frames", 1) if image.format in ("WEBP", "PNG") else 1
    for page in count():
        try:
            image.seek(page)
            if image.format == "WEBP":
                image.load()  # tells the time
        except Exception as error:
            if not isinstance(error, EOFError) or page < stated:
                yield page, 0.0
            return
        is_aside = isinstance(image, TiffImageFile) and image.tag_v2.get(ExifTags.Base.NewSubfileType, 0) & 0b101
        is_stand_in = page == 0 and getattr(image, "default_image", False)
        if not is_aside and not is_stand_in:
            stated_time = image.info.get("duration")  # where this is 0 or 10 ms, browsers and FFmpeg show it for 100
            yield page, float(stated_time or 0) if stated_time is None or stated_time > 10 else 100.0


def described_rate(image: Image.Image, pages: int, size: int) -> float:
    """Give the rate of a TIFF stack as ImageJ or OME describe it on its first page; 0 where they do not.

    Refused is what they describe as other than a frame a page, as far as a file of this ``size`` can hold it.
    """
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    text = str(tags.get(ExifTags.Base.ImageDescription, ""))
    if not text.startswith("ImageJ=") and "<OME" not in text:
        return 0.0
    names = "channels|SizeC|images|finterval|TimeIncrement|tunit|TimeIncrementUnit|fps"
    said = dict(re.findall(rf'\b({names})="?([\w.-]+)', text))
    channels, samples = int(said.get("channels") or said.get("SizeC") or 1), tags.get(ExifTags.Base.SamplesPerPixel, 1)
    if samples == 1 and 1 < channels <= min(pages, 4):  # more are frames, unless tifffile is told that they are
        raise ValueError(f"a frame has {channels} pages, one a channel; store it as one page of colors")
    images, held = int(said.get("images") or 1), sum(tags.get(ExifTags.Base.StripByteCounts, ()))
    if images > pages == 1 and size >= images * held > 0:  # as ImageJ writes more than 4 GB
        raise ValueError(f"has {images} images, but only one page; store each as a page")
    step = float(said.get("finterval") or said.get("TimeIncrement") or 0)
    step *= _SECONDS.get(said.get("tunit") or said.get("TimeIncrementUnit") or "s", 0.0)
    rate = 1 / step if step > 0 else float(said.get("fps") or 0)
    return rate if 0 < rate < math.inf else 0.0


class FramesReader(ClipReader):
    """Reads a clip that is stored as one image file a frame, or as the pages of one: a TIFF stack, an animation.

    Gray images become RGB, 16 bits are reduced to 8, alpha is dropped, and images are turned as their EXIF data ask. Of
    a folder they are taken in natural order. The ``fps`` count unless an animation or stack states them.
    """

    def __init__(self, frames: str | os.PathLike | Sequence[str | os.PathLike], *, fps: float = 30.0) -> None:
        self._files, self._fps = clip_images(frames), fps
        first = str(self._files[0]) if self._files else "[]"
        super().__init__(os.fspath(frames) if isinstance(frames, (str, os.PathLike)) else first)
        if not self._files:
            raise ClipReadError(f"{self.path}: holds no frame images")
        stems = {os.path.splitext(file)[0]: file for file in reversed(self._files)}
        for file in self._files if len(stems) < len(self._files) else ():  # hardly ever
            if (other := stems[os.path.splitext(file)[0]]) != file and has_suffix(file, IMAGE_SUFFIXES):
                raise ClipReadError(f"{file}: has the name of {other.name}: a mask beside its image, or a frame twice")
        for stem, file in ((stem, file) for stem, file in stems.items() if stem.lower().endswith(_OF_MASKS)):
            if image := stems.get(stem[: max(map(stem.rfind, _SIGNS))]):
                raise ClipReadError(f"{file}: is named as a mask of {image.name}; masks need a folder of their own")

    def _probe(self) -> ClipInfo:
        frames, fps = len(self._files), self._fps
        is_alone = frames == 1
        with open_picture(self._files[0]) as image:
            pages = picture_pages(image)
            self._pages, shown = zip(*(pages if is_alone else islice(pages, 1)), strict=True)
            image.seek(self._pages[0])
            if is_alone:
                frames = len(self._pages)
                fps = 1000 * frames / sum(shown) if frames > 1 and sum(shown) > 0 else fps
                fps = described_rate(image, frames, os.stat(self._files[0]).st_size) or fps
                self._steps = [time / 1000 for time in shown[:-1]]
            aspect = pixel_aspect(image)  # first: a TIFF that is loaded no longer tells how it was turned
            height, width = rgb_pixels(image, self._pages[0]).shape[:2]
        return ClipInfo(frames, fps, height, width, duration=frames / fps, pixel_aspect=aspect)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        info = self.probe()
        if len(self._files) == 1:
            with open_picture(self._files[0]) as image:
                for index in wanted:
                    yield index, rgb_pixels(image, self._pages[index])
            return
        for index in wanted:
            with open_picture(self._files[index]) as image:
                (page, _), *more = islice(picture_pages(image), 2)
                if more:
                    raise ClipReadError(f"{self._files[index]}: holds several images, but is one of several files")
                frame = rgb_pixels(image, page)
            if frame.shape[:2] != (info.height, info.width):
                size = f"{frame.shape[0]}x{frame.shape[1]} pixels (rows x columns)"
                other = f"{self._files[0]} of the same clip has {info.height}x{info.width}"
                raise ClipReadError(f"{self._files[index]}: has {size}, but {other}")
            yield index, frame
