# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.readers.paths import frame_images
from endofm_monai.data.readers.pictures import open_picture, picture_pages, rgb_pixels

__all__ = ["FramesReader"]


class FramesReader(ClipReader):
    """Reads a clip that is stored as one image file a frame, or as the pages of one: a TIFF stack, an animation.

    Gray images become RGB, 16 bits are reduced to 8, alpha is dropped, and images are turned as their EXIF data ask.

    Args:
        frames: a folder, whose images are taken in natural order, or the image files in the order of the clip.
        fps: frames per second, which only animations state.
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
        frames, fps = len(self._files), self._fps
        with open_picture(self._files[0]) as image:
            pages = picture_pages(image)
            self._pages, shown = zip(*(pages if frames == 1 else islice(pages, 1)), strict=True)
            if frames == 1:
                frames = len(self._pages)
                fps = 1000 * frames / sum(shown) if frames > 1 and sum(shown) > 0 else fps
                self._steps = [time / 1000 for time in shown[:-1]]
            height, width = self._show(image, self._pages[0]).shape[:2]
        return ClipInfo(frames, fps, height, width, duration=frames / fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        info = self.probe()
        if len(self._files) == 1:
            with open_picture(self._files[0]) as image:
                for index in wanted:
                    yield index, self._show(image, self._pages[index])
            return
        for index in wanted:
            with open_picture(self._files[index]) as image:
                (page, _), *more = islice(picture_pages(image), 2)
                if more:
                    raise ClipReadError(f"{self._files[index]}: holds several images, but is one of several files")
                frame = self._show(image, page)
            if frame.shape[:2] != (info.height, info.width):
                raise ClipReadError(
                    f"{self._files[index]}: has {frame.shape[0]}x{frame.shape[1]} pixels (rows x columns), but "
                    f"{self._files[0]} of the same clip has {info.height}x{info.width}"
                )
            yield index, frame

    @staticmethod
    def _show(image: Image.Image, page: int) -> np.ndarray:
        image.seek(page)
        return rgb_pixels(image)
