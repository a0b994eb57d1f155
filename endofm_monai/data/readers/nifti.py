# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import nibabel
import numpy as np

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError, clip_read_errors, likely_aspect

__all__ = ["NiftiReader"]

_MAX_DEFLATION = 1032  # how much smaller gzip can make a file
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


class NiftiReader(ClipReader):
    """Reads a clip that is stored as a NIfTI image with nibabel; the axes are not flipped, whatever the affine.

    Gray clips have the shape ``(X, Y, T)``, ``(X, Y, 1, T)``, ``(X, Y, T, 1)``, or ``(X, Y)`` for one frame, x from
    left to right; color clips have RGB pixels, or a last axis of 3. Values other than uint8 are scaled to 0..255 from
    the display range of the header (``cal_min`` to ``cal_max``), else from that of all finite values of the clip. The
    ``fps`` count unless the header states the time between frames with its unit.
    """

    def __init__(self, path: str | os.PathLike, *, fps: float = 30.0) -> None:
        super().__init__(os.fspath(path))
        self._fps = fps
        with clip_read_errors(self.path, "is not a readable NIfTI image"):
            self._open()
        shape = self._image.shape
        self._depth = len(shape) > 3 and shape[2] == 1  # (X, Y, 1, T): the third axis is no time
        self._flat = not self._depth and shape[3:4] == (1,)  # as ITK stores vectors
        times = shape[2 + self._depth : 3 + self._depth] + shape[3 + self._depth + self._flat :]
        if len(shape) < 2 or 0 in shape or times[1:] not in ((), (3,)):
            known = "(X, Y, T) or (X, Y, 1, T), and 3 as a further axis for color"
            raise ClipReadError(f"{self.path}: has shape {shape}, but a clip has shape {known}")
        stated = times[0] if times else 1
        size = os.path.getsize(self.path) * (_MAX_DEFLATION if self.path.lower().endswith(".gz") else 1)
        frame = math.prod(shape) // stated * self._image.get_data_dtype().itemsize
        if size < frame:
            raise ClipReadError(f"{self.path}: ends within its first frame")
        self._frames = min(stated, size // frame + 1)  # where the file is too short, one more than it can hold

    def _open(self) -> None:
        """Open one file for all frames: else each would be unpacked from the beginning on."""
        self._image: Any = nibabel.load(self.path, keep_file_open=True)
        self._process = os.getpid()

    def close(self) -> None:
        self._image = None  # which holds it

    def _probe(self) -> ClipInfo:
        (width, height), header = self._image.shape[:2], self._image.header
        second = _SECONDS.get(header.get_xyzt_units()[1])
        step = header.get_zooms()[3] if self._depth else 0
        rate = 1 / (float(step) * second) if step and second else 0
        fps = rate if 0 < rate < math.inf else self._fps
        aspect = likely_aspect(*map(float, header.get_zooms()[:2]))
        return ClipInfo(self._frames, fps, height, width, self._frames / fps, aspect)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            part = (slice(None), slice(None), *[0] * self._depth, index, *[0] * self._flat)
            frame = self._load(part[: self._image.ndim])  # of a single frame two
            if frame.dtype != np.uint8:
                low, high = self._display_range
                scaled = (frame.astype(np.float64) - low) * (255 / (high - low) if high > low else 0)
                frame = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
            if frame.ndim == 2:
                frame = np.broadcast_to(frame[..., None], (*frame.shape, 3))
            yield index, frame.swapaxes(0, 1)

    @cached_property
    def _display_range(self) -> tuple[float, float]:
        low, high = float(self._image.header["cal_min"]), float(self._image.header["cal_max"])
        if not -math.inf < low < high < math.inf:
            values = self._load(())
            values = values[np.isfinite(values)]
            if not values.size:
                raise ClipReadError(f"{self.path}: has no finite value")
            low, high = float(values.min()), float(values.max())
        return low, high

    def _load(self, part: tuple) -> np.ndarray:
        """Read a part of the array; colors, if any, are its last axis."""
        with clip_read_errors(self.path, "cannot be read to its end"):
            if self._process != os.getpid():  # a fork shares the place in the file with its parent
                self._open()
            values = np.asarray(self._image.dataobj[part])
        if values.dtype.kind == "c":
            raise ClipReadError(f"{self.path}: its values are complex numbers")
        if values.dtype.names:  # RGB pixels are records of three or four bytes
            values = np.stack([values[name] for name in "RGB"], axis=-1)
        return values
