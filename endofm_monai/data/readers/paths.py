# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["first_frame", "join_frames", "split_frames"]

_RANGE = re.compile(r"#frames=(\d+)-(\d+)$")

# The one list of what is found in folders; a file that is named is opened by what it holds.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".dv", ".mkv", ".webm", ".ogv", ".ogm", ".flv"),
    *(".f4v", ".wmv", ".asf", ".mxf", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".mpv", ".vob", ".mod", ".tod", ".ts"),
    *(".mts", ".m2ts", ".m2t", ".trp", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpg", ".mjpeg", ".ivf", ".y4m"),
)
IMAGE_SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
DICOM_SUFFIXES = (".dcm", ".dicom")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
CLIP_SUFFIXES = VIDEO_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES


def has_suffix(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> bool:
    """Say whether a file name ends in one of ``suffixes``, in upper or lower case."""
    return os.fspath(path).lower().endswith(suffixes)


def frame_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images in a folder in natural order (``frame2`` before ``frame10``), without hidden ones.

    A link that leads nowhere is one too: reading names it, where a clip without it would have other frames.
    """
    names = (entry.name for entry in os.scandir(folder) if not entry.is_dir())
    images = [name for name in names if has_suffix(name, IMAGE_SUFFIXES) and not name.startswith(".")]
    return [Path(folder, name) for name in sorted(images, key=natural_key)]


def clip_images(clip: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the files of a clip: the images of a folder, a part of one or a list of them, or the one file that it is."""
    if not isinstance(clip, (str, os.PathLike)):
        return [Path(file) for file in clip]
    whole, part = split_frames(os.fspath(clip))
    if not os.path.isdir(whole):
        return [Path(whole)]
    first, last = part or (0, None)
    return frame_images(whole)[first : None if last is None else last + 1]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Give a sort key in which runs of digits count as numbers: ``frame2`` comes before ``frame10``.

    Names that then are the same, as ``1`` and ``01``, are in the order of their characters.
    """
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name


def join_frames(path: str, first: int, last: int) -> str:
    """Name the frames ``first`` to ``last`` (both included, counted from 0) of a clip: ``video.mp4#frames=150-299``."""
    return f"{path}#frames={first}-{last}"


def split_frames(name: str) -> tuple[str, tuple[int, int] | None]:
    """Take a name made by :func:`join_frames` apart: the path, and first and last frame or, of a whole clip, None.

    A file that really has such a name is a whole clip.
    """
    found = _RANGE.search(name)
    if found is None or os.path.exists(name):
        return name, None
    return name[: found.start()], (int(found[1]), int(found[2]))


def first_frame(clip: object) -> int:
    """Number in its video of the first frame of what may be a part of one."""
    _, part = split_frames(clip) if isinstance(clip, str) else (clip, None)
    return part[0] if part else 0
