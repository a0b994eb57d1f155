# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from endofm_monai.data import ClipReadError, join_frames, open_clip
from endofm_monai.data.readers.paths import IMAGE_SUFFIXES, frame_images, has_suffix

__all__ = ["Clip", "find_clip", "frame_number", "neighbors", "runs"]

_NUMBERED = re.compile(r"(.*\D|)(\d+)(\D*)", re.DOTALL)


@dataclass(frozen=True)
class Clip:
    """The clip that a frame belongs to.

    Args:
        source: a video file, or the frame images in order.
        length: number of its frames.
        frame: the frame that is asked about, counted from 0; None for the whole clip.
    """

    source: str | list[str]
    length: int
    frame: int | None

    def part(self, start: int, stop: int) -> str | list[str]:
        """The frames from ``start`` up to ``stop``, in a form that is read as a clip."""
        return join_frames(self.source, start, stop - 1) if isinstance(self.source, str) else self.source[start:stop]


def find_clip(path: str, frame: int | None = None, context: bool = True) -> Clip:
    """Find the clip that tells more about a frame than the frame alone.

    Args:
        path: an image, which may be a frame of a clip, or a video file.
        frame: for a video the number of the frame, from 0; None for the whole video.
        context: take the images beside an image for its clip, see :func:`neighbors`.

    Raises:
        ClipReadError: when the file cannot be opened, or has no such frame.
    """
    if has_suffix(path, IMAGE_SUFFIXES):
        if frame:
            raise ClipReadError(f"{os.path.basename(path)}: is a single image, which has no frame {frame}")
        source = neighbors(path) if context else [path]
        return Clip(source, len(source), source.index(path))
    with open_clip(path) as reader:
        length = reader.probe().frames
    if frame is not None and not 0 <= frame < length:
        raise ClipReadError(f"{os.path.basename(path)}: has no frame {frame}; its {length} frames count from 0")
    return Clip(path, length, frame)


def neighbors(path: str) -> list[str]:
    """List the images in the folder of an image that are numbered without a gap before and after it, and itself.

    ``case_0007.png`` has the neighbors ``case_0006.jpg`` and ``case_0008.png``; the number is the last one in the name.
    """
    place = frame_number(path)
    if place is None:
        return [path]
    clip, number = place
    found: dict[int, str] = {}
    for image in frame_images(os.path.dirname(path)):
        other = frame_number(image)
        if other is not None and other[0] == clip:
            found.setdefault(other[1], str(image))
    found[number] = path
    first = last = number
    while first - 1 in found:
        first -= 1
    while last + 1 in found:
        last += 1
    return [found[index] for index in range(first, last + 1)]


def frame_number(path: str | os.PathLike) -> tuple[tuple[str, str], int] | None:
    """Tell the clip, by what is before and after the number, and the number of a frame image; None without a number."""
    match = _NUMBERED.fullmatch(Path(path).stem)
    return ((match[1], match[3]), int(match[2])) if match else None


def runs(paths: Sequence[str]) -> list[list[int]]:
    """Group frame images into clips: runs of neighbors.

    Returns:
        indices into ``paths``, in the order of the frames; an image without a number is on its own.
    """
    places = [frame_number(path) or ((path, ""), 0) for path in paths]
    grouped: list[list[int]] = []
    for index in sorted(range(len(paths)), key=places.__getitem__):
        clip, number = places[index]
        if grouped and places[grouped[-1][-1]] == (clip, number - 1):
            grouped[-1].append(index)
        else:
            grouped.append([index])
    return grouped
