# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom

from endofm_monai.data.readers.base import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    VIDEO_SUFFIXES,
    ClipReader,
    ClipReadError,
    FrameRangeReader,
    clip_read_errors,
    frame_images,
    has_suffix,
    is_hidden,
    natural_key,
    split_frames,
)
from endofm_monai.data.readers.dicom import open_dicom
from endofm_monai.data.readers.images import FramesReader, open_picture, picture_pages
from endofm_monai.data.readers.nifti import NiftiReader
from endofm_monai.data.readers.video import VideoReader
from endofm_monai.utils import PathLike

__all__ = ["EndoFMClipReader", "clip_metadata", "find_clips", "list_files", "open_clip"]

logger = logging.getLogger(__name__)

# Classes of DICOM: directories, waveforms, presentation states, reports and key objects, documents as PDF.
_DOCUMENTS = tuple(f"1.2.840.10008.{kind}." for kind in ("1.3.10", *(f"5.1.4.1.1.{n}" for n in (9, 11, 88, 104))))


def open_clip(source: PathLike | Sequence[PathLike], *, fps: float = 30.0, threads: int = 1) -> ClipReader:
    """Open a clip with the reader for what it is, or raise a ``ClipReadError``.

    Args:
        source: a video file, a folder of frame images, a list of frame images or of one file, a DICOM file (with any
            name), a NIfTI file, or an image file, which is a clip of its pages: mostly of one frame.
            ``"video.mp4#frames=150-299"`` is a part of a clip, frames counted from 0, both included.
        fps: frames per second of a clip that does not state them, as frame images; a bare stream (``.h264``) has 25.
        threads: decoding threads for videos; see :class:`endofm_monai.data.VideoReader`.

    Example::

        with open_clip("colonoscopy.mp4") as reader:
            print(reader.probe())  # ClipInfo(frames=250, fps=25.0, height=288, width=384, duration=10.0)
            frames = reader.read([0, 10, 20])  # (3, 3, 288, 384), uint8
    """
    if not isinstance(source, (str, os.PathLike)):
        if len(source) != 1:
            return FramesReader(source, fps=fps)
        (source,) = source
    path = os.fspath(source)
    whole, frames = split_frames(path)
    if frames is not None:
        return FrameRangeReader(open_clip(whole, fps=fps, threads=threads), *frames)
    with clip_read_errors(path):
        if not os.path.exists(path):
            raise ClipReadError(f"{path}: does not exist")
        if os.path.isdir(path) or has_suffix(path, IMAGE_SUFFIXES):
            return FramesReader(path, fps=fps)
        if has_suffix(path, NIFTI_SUFFIXES):
            return NiftiReader(path, fps=fps)
        is_video = has_suffix(path, VIDEO_SUFFIXES) and not path.endswith((".264", ".265"))  # or numbers of DICOM
        if has_suffix(path, DICOM_SUFFIXES) or (not is_video and is_dicom(path)):
            return open_dicom(path, fps=fps, threads=threads)
        return VideoReader(path, threads=threads)


def find_clips(folder: PathLike) -> list[Path]:
    """Find the clips in a folder and below it, and log by suffix which files are not used.

    A clip is a video, DICOM or NIfTI file, or a folder with frame images and none of these files (images beside a
    video are taken for thumbnails); where the first image holds several, as TIFF stacks do, each is a clip of its own.
    DICOM files are often named by a number: a file without a suffix of letters is one if it begins as such. Those that
    hold no images, as reports, hidden files and folders, and wastebaskets are left out, and links to folders are not
    followed. The order is natural.
    """
    clips: list[Path] = []
    unused: list[str] = []
    for parent, names in _walk(folder):
        known = VIDEO_SUFFIXES + NIFTI_SUFFIXES
        files = [name for name in names if has_suffix(name, known) or is_dicom_image(Path(parent, name))]
        images = [] if files else frame_images(parent)
        if images and not holds_several(images[0]):
            clips.append(Path(parent))
        else:
            clips += images or [Path(parent, name) for name in files]
        unused += set(names).difference(files, (image.name for image in images))
    log_unused(folder, unused)
    return sorted(clips, key=lambda clip: natural_key(str(clip)))


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files in a folder and below it whose names end in one of ``suffixes``, and log which are not used."""
    files = sorted(Path(parent, name) for parent, names in _walk(folder) for name in names)
    log_unused(folder, [path.name for path in files if not has_suffix(path, suffixes)])
    return [path for path in files if has_suffix(path, suffixes)]


def _walk(folder: PathLike) -> Iterator[tuple[str, list[str]]]:
    """Give a folder and all below it, each with the names of its files, without what is hidden."""

    def refuse(error: OSError) -> None:  # else the clips of the folder would be missing without a word
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if links := [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            logger.warning(f"{parent}: {len(links)} links to folders are not followed: {', '.join(links[:10])}")
        yield parent, [name for name in names if not name.startswith(".")]


def log_unused(folder: PathLike, names: Iterable[str]) -> None:
    """Log how many files of each suffix in a folder are not used, in one line."""
    if counts := Counter(sorted(os.path.splitext(name)[1].lower() or "without suffix" for name in names)):
        kinds = [f"{count} {suffix}" for suffix, count in counts.most_common(10)] + ["..."] * (len(counts) > 10)
        logger.warning(f"{os.fspath(folder)}: {counts.total()} files are not used: {', '.join(kinds)}")


def holds_several(image: PathLike) -> bool:
    """Say whether an image file is a clip of several frames, as a TIFF stack or an animation; not an unreadable one."""
    with suppress(ClipReadError), open_picture(image) as opened:
        return len(list(islice(picture_pages(opened), 2))) > 1
    return False


def is_dicom_image(path: Path) -> bool:
    """Say whether a file is DICOM, by its suffix or where its name tells nothing by its beginning, and no document."""
    is_named = has_suffix(path, DICOM_SUFFIXES)
    if not is_named and not (is_numbered(path.name) and path.name != "DICOMDIR" and path.is_file() and is_dicom(path)):
        return False
    with suppress(Exception):  # reading names what is damaged
        return not f"{read_file_meta_info(path).MediaStorageSOPClassUID}.".startswith(_DOCUMENTS)
    return True


def is_numbered(name: str) -> bool:
    """Say whether a file's name has no suffix, or a number in its place, as DICOM files have."""
    suffix = os.path.splitext(name)[1][1:]
    return not suffix or (suffix.isdecimal() and not has_suffix(name, VIDEO_SUFFIXES))


def clip_metadata(reader: ClipReader, indices: torch.Tensor) -> dict[str, Any]:
    """Describe the frames ``indices``, int64 ``(T,)``, of a clip as they are read, ``(3, T, H, W)``, for MONAI too."""
    info = reader.probe()
    return {
        "filename_or_obj": reader.path,
        MetaKeys.SPATIAL_SHAPE: np.array([len(indices), info.height, info.width]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "frame_indices": indices,
        "frames": info.frames,  # in the whole clip
        "fps": info.fps,
    }


class EndoFMClipReader(ImageReader):
    """Lets MONAI's ``LoadImage`` read clips, as ``(3, T, H, W)``; for video files it is chosen by itself.

    By name, ``LoadImage(reader="EndoFMClipReader")``, it reads whatever :func:`endofm_monai.data.open_clip` opens.
    """

    def __init__(self, **reader_options: Any) -> None:
        self.reader_options = reader_options

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Say whether all files are videos by their names: other files are left to MONAI's own readers."""
        return all(has_suffix(name, VIDEO_SUFFIXES) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> ClipReader:
        """Open one clip: a file or folder, or a list of frame images; ``kwargs`` go before ``reader_options``."""
        return open_clip(ensure_tuple(data), **{**self.reader_options, **kwargs})

    def get_data(self, img: ClipReader) -> tuple[np.ndarray, dict[str, Any]]:
        """Read all frames of a clip, uint8 RGB ``(3, T, H, W)``, with :func:`clip_metadata`, and close it."""
        with img as reader:
            indices = torch.arange(reader.probe().frames)
            return reader.read(indices).numpy(), clip_metadata(reader, indices)
