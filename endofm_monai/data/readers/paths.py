# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import re
from pathlib import Path

from pydicom.misc import is_dicom

__all__ = ["find_clips"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DICOM_SUFFIXES = (".dcm", ".dicom")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
_CLIP_SUFFIXES = VIDEO_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES


def has_suffix(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> bool:
    """Say whether a file name ends in one of ``suffixes``, in upper or lower case."""
    return os.fspath(path).lower().endswith(suffixes)


def frame_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images in a folder in natural order (``frame2`` before ``frame10``), without hidden ones."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_file())
    images = [name for name in names if has_suffix(name, IMAGE_SUFFIXES) and not name.startswith(".")]
    return [Path(folder, name) for name in sorted(images, key=natural_key)]


def find_clips(folder: str | os.PathLike[str]) -> list[Path]:
    """Find the clips in a folder and below it.

    A clip is a video, DICOM or NIfTI file, or a folder with frame images and none of these files (images beside a
    video are taken for thumbnails). DICOM files are often named by a number: a file without a suffix of letters is one
    if it begins as such. Hidden files and folders are left out, and links to folders are not followed. The order is
    natural.
    """
    clips: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in names if not name.startswith(".")]
        files = [name for name in names if has_suffix(name, _CLIP_SUFFIXES) or _is_nameless_dicom(Path(parent, name))]
        clips += [Path(parent, name) for name in files]
        if not files and frame_images(parent):
            clips.append(Path(parent))
    return sorted(clips, key=lambda clip: natural_key(str(clip)))


def _is_nameless_dicom(path: Path) -> bool:
    """Say whether a file whose name tells nothing is a DICOM image; ``DICOMDIR`` lists others and holds none."""
    suffix = path.suffix[1:]
    return (not suffix or suffix.isdecimal()) and path.name != "DICOMDIR" and path.is_file() and is_dicom(path)


def natural_key(name: str) -> list[str | int]:
    """Give a sort key in which runs of digits count as numbers: ``frame2`` comes before ``frame10``."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]
