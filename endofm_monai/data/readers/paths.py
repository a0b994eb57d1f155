# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pydicom.misc import is_dicom

from endofm_monai.data.readers.base import ClipReadError, split_frames
from endofm_monai.data.readers.pictures import open_picture, picture_pages

__all__ = ["find_clips"]

logger = logging.getLogger(__name__)

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


def find_clips(folder: str | os.PathLike[str]) -> list[Path]:
    """Find the clips in a folder and below it, and log by suffix which files are not used.

    A clip is a video, DICOM or NIfTI file, or a folder with frame images and none of these files (images beside a
    video are taken for thumbnails); where the first image holds several, as TIFF stacks do, each is a clip of its own.
    DICOM files are often named by a number: a file without a suffix of letters is one if it begins as such. Hidden
    files and folders are left out, and links to folders are not followed. The order is natural.
    """
    clips: list[Path] = []
    unused: list[str] = []
    for parent, names in _walk(folder):
        files = [name for name in names if has_suffix(name, CLIP_SUFFIXES) or _is_nameless_dicom(Path(parent, name))]
        images = [] if files else frame_images(parent)
        if images and not _holds_several(images[0]):
            clips.append(Path(parent))
        else:
            clips += images or [Path(parent, name) for name in files]
        unused += set(names).difference(files, (image.name for image in images))
    _log_unused(folder, unused)
    return sorted(clips, key=lambda clip: natural_key(str(clip)))


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files in a folder and below it whose names end in one of ``suffixes``, and log which are not used."""
    files = sorted(Path(parent, name) for parent, names in _walk(folder) for name in names)
    _log_unused(folder, [path.name for path in files if not has_suffix(path, suffixes)])
    return [path for path in files if has_suffix(path, suffixes)]


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Give a folder and all below it, each with the names of its files, without what is hidden.

    A folder that cannot be read is an error: its clips would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield parent, [name for name in names if not name.startswith(".")]


def _log_unused(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Log how many files of each suffix in a folder are not used, in one line."""
    counts = Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in names)
    if counts:
        kinds = sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
        listed = ", ".join(f"{count} {suffix}" for suffix, count in kinds[:10]) + ", ..." * (len(kinds) > 10)
        logger.warning(f"{os.fspath(folder)}: {counts.total()} files are not used: {listed}")


def _holds_several(image: Path) -> bool:
    with suppress(ClipReadError), open_picture(image) as opened:
        return len(list(islice(picture_pages(opened), 2))) > 1
    return False


def _is_nameless_dicom(path: Path) -> bool:
    """Say whether a file whose name tells nothing is a DICOM image; ``DICOMDIR`` lists others and holds none."""
    suffix = path.suffix[1:]
    return (not suffix or suffix.isdecimal()) and path.name != "DICOMDIR" and path.is_file() and is_dicom(path)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Give a sort key in which runs of digits count as numbers: ``frame2`` comes before ``frame10``.

    Names that then are the same, as ``1`` and ``01``, are in the order of their characters.
    """
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name
