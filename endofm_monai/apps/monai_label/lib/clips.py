# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from endofm_monai.data import ClipReadError, open_clip, picture_size
from endofm_monai.data.readers.base import IMAGE_SUFFIXES, VIDEO_SUFFIXES, frame_images, has_suffix
from endofm_monai.data.readers.opener import holds_several
from endofm_monai.utils import PathLike

T = TypeVar("T")


def until_changed(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Remember what a function finds out about a file, until the file changes."""
    cached = lru_cache(maxsize=1 << 17)(lambda path, changed: function(path))
    return lambda path: cached(path, os.stat(path).st_ctime_ns)


def find_clip(path: str, frame: int | None = None, context: bool = True) -> tuple[str | list[str], int | None]:
    """Find the clip that tells more about a frame than the frame alone, and the number of the frame in it, from 0.

    Of a video the ``frame`` is given, or None for the whole; an image has its :func:`neighbors` as ``context``.
    """
    if not is_frame(path):
        return path, frame
    if frame:
        raise ClipReadError(f"{os.path.basename(path)}: is a single image, which has no frame {frame}")
    images = neighbors(path) if context else [path]
    return images, images.index(path)


def is_frame(path: str) -> bool:
    """Tell whether a file is an image of one frame, also as DICOM of any name: a TIFF stack or animation is a video."""
    if has_suffix(path, IMAGE_SUFFIXES):
        return not holds_several(path)
    if not has_suffix(path, VIDEO_SUFFIXES):
        with suppress(ClipReadError), open_clip(path) as reader:
            return reader.probe().frames == 1
    return False


def neighbors(path: str) -> list[str]:
    """List the images in the folder of an image that are numbered without a gap before and after it, and itself.

    ``case_0007.png`` has the neighbors ``case_0006.jpg`` and ``case_0008.png``, as far as they have its size.
    """
    clip = frame_number(path)[0]
    images = {frame_number(image): str(image) for image in reversed(frame_images(os.path.dirname(path)))}
    paths = [image for place, image in {**images, frame_number(path): path}.items() if place[0] == clip]
    return next(run for run in runs(paths) if path in run)


def frame_number(path: PathLike) -> tuple[tuple[str, str], int]:
    """Tell the clip of a frame image, by what is before and after the last number in its name, and the number.

    An image without a number is the only one of its clip, and a video is its own.
    """
    name = Path(path).stem if has_suffix(path, IMAGE_SUFFIXES) else ""
    match = re.fullmatch(r"(.*\D|)(\d+)(\D*)", name, re.DOTALL)
    return ((match[1], match[3]), int(match[2])) if match else ((os.fspath(path), ""), 0)


def runs(paths: Iterable[str]) -> list[list[str]]:
    """Group frame images into clips: runs of neighbors of one size, in order."""
    grouped: list[list[str]] = []
    for path in sorted(paths, key=frame_number):
        clip, number = frame_number(path)
        last = grouped[-1][-1] if grouped else path
        if frame_number(last) == (clip, number - 1) and len({_size(last), _size(path)} - {None}) < 2:
            grouped[-1].append(path)
        else:
            grouped.append([path])
    return grouped


def _size(path: str) -> tuple[object, ...] | None:
    """The size of an image, and of a video its path; None of one that cannot be read, which is named when looked at."""
    with suppress(ClipReadError, OSError):
        return _readable_size(path)
    return None


@until_changed
def _readable_size(path: str) -> tuple[object, ...]:
    return (*picture_size(path), not is_frame(path) and path)


def join_frames_of_clips(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make clips of the items of neighboring frames of one class, so that the network learns from them in order.

    Videos stay as they are; images without such neighbors become clips of one frame.
    """
    clips: list[dict[str, Any]] = []
    for label in dict.fromkeys(item.get("label") for item in items):
        alike = [item for item in items if item.get("label") == label]
        frames = {item["image"]: item for item in alike if is_frame(item["image"])}
        clips += [item for item in alike if item["image"] not in frames]
        for run in runs(frames):
            clip = {key: [frames[path][key] for path in run] for key in frames[run[0]]}
            clips.append({**clip, "label": label} if label is not None else clip)
    return clips
