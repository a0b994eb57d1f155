# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np

from endofm_monai.data.clip_reader import ClipInfo, ClipReader, ClipReadError

__all__ = ["FrameRangeReader", "join_frames", "split_frames"]

_RANGE = re.compile(r"#frames=(\d+)-(\d+)$")


def join_frames(path: str, first: int, last: int) -> str:
    """Name the frames ``first`` to ``last`` (both included, counted from 0) of a clip: ``video.mp4#frames=150-299``.

    It is the notation of web addresses, so that a part of a video is one string like any other clip: in datalists, in
    messages, and as the name of a result.
    """
    return f"{path}#frames={first}-{last}"


def split_frames(name: str) -> tuple[str, tuple[int, int] | None]:
    """Take a name made by :func:`join_frames` apart.

    Returns:
        the path, and the first and last frame; ``None`` for a whole clip, or a file that really has such a name.
    """
    found = _RANGE.search(name)
    if found is None or os.path.exists(name):
        return name, None
    return name[: found.start()], (int(found[1]), int(found[2]))


class FrameRangeReader(ClipReader):
    """Reads a range of the frames of another reader, as if it were a whole clip.

    Args:
        reader: the whole clip's reader, which is closed with this one.
        first: first frame of the range, counted from 0.
        last: last frame of the range, included.
    """

    def __init__(self, reader: ClipReader, first: int, last: int) -> None:
        super().__init__(join_frames(reader.path, first, last))
        self._reader = reader
        self._first = first
        self._last = last

    def close(self) -> None:
        """Close the whole clip's reader."""
        self._reader.close()

    def _probe(self) -> ClipInfo:
        whole = self._reader.probe()
        if not self._first <= self._last < whole.frames:
            raise ClipReadError(f"{self.path}: is no range of frames of the clip, which has {whole.frames} frames")
        frames = self._last - self._first + 1
        return ClipInfo(frames, whole.fps, whole.height, whole.width, duration=frames / whole.fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in self._reader._decode([self._first + index for index in wanted]):
            yield index - self._first, frame
