# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.readers.paths import frame_images

__all__ = ["FramesReader"]


class FramesReader(ClipReader):
    """Reads a clip that is stored as one image file a frame.

    Gray images become RGB, 16 bits are reduced to 8, alpha is dropped, and images are turned as their EXIF data ask.

    Args:
        frames: a folder, whose images are taken in natural order, or the image files in the order of the clip.
        fps: frames per second, which images do not state.
    """

    def __init__(self, frames: str | os.PathLike | Sequence[str | os.PathLike], *, fps: float = 30.0) -> None:
        if isinstance(frames, (str, os.PathLike)):
            self._files = frame_images(frames)
            super().__init__(os.fspath(frames))
        else:
            self._files = [Path(file) for file in frames]
            super().__init__(str(self._files[0]) if self._files else "[]")
        self._fps = fps
        if not self._files:
            raise ClipReadError(f"{self.path}: holds no frame images")

    def _probe(self) -> ClipInfo:
        height, width = self._load(0).shape[:2]
        return ClipInfo(len(self._files), self._fps, height, width, duration=len(self._files) / self._fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        info = self.probe()
        for index in wanted:
            image = self._load(index)
            if image.shape[:2] != (info.height, info.width):
                raise ClipReadError(
                    f"{self._files[index]}: has {image.shape[0]}x{image.shape[1]} pixels (rows x columns), but "
                    f"{self._files[0]} of the same clip has {info.height}x{info.width}"
                )
            yield index, image

    def _load(self, index: int) -> np.ndarray:
        try:
            with Image.open(self._files[index]) as image:
                image = ImageOps.exif_transpose(image)
                if image.mode.startswith("I;16"):  # PIL would clip instead of scale
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                if image.mode in ("I", "F"):
                    raise ValueError(f"pixels of type {image.mode} have no known range")
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ClipReadError(f"{self._files[index]}: is not a readable image ({error})") from error
