# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence

from pydicom.misc import is_dicom

from endofm_monai.data.clip_files import DICOM_SUFFIXES, IMAGE_SUFFIXES, NIFTI_SUFFIXES, VIDEO_SUFFIXES, has_suffix
from endofm_monai.data.clip_reader import ClipReader, ClipReadError
from endofm_monai.data.dicom_reader import open_dicom
from endofm_monai.data.frame_range import FrameRangeReader, split_frames
from endofm_monai.data.frames_reader import FramesReader
from endofm_monai.data.nifti_reader import NiftiReader
from endofm_monai.data.video_reader import VideoReader

__all__ = ["open_clip"]


def open_clip(
    source: str | os.PathLike | Sequence[str | os.PathLike], *, fps: float = 30.0, threads: int = 1
) -> ClipReader:
    """Open a clip with the reader for what it is.

    Args:
        source: a video file, a folder of frame images, a list of frame images, a DICOM file (with any name), a NIfTI
            file, or an image file, which is a clip of one frame. ``"video.mp4#frames=150-299"`` is a part of a clip,
            frames counted from 0, both included.
        fps: frames per second of a clip that does not state them, as frame images.
        threads: decoding threads for videos; see :class:`endofm_monai.data.VideoReader`.

    Returns:
        an open reader, to be closed after use, best by ``with``.

    Raises:
        ClipReadError: when there is no such file, or it is no clip.

    Example::

        with open_clip("colonoscopy.mp4") as reader:
            print(reader.probe())  # ClipInfo(frames=250, fps=25.0, height=288, width=384, duration=10.0)
            frames = reader.read([0, 10, 20])  # (3, 3, 288, 384), uint8
    """
    if not isinstance(source, (str, os.PathLike)):
        return FramesReader(source, fps=fps)
    whole, frames = split_frames(os.fspath(source))
    if frames is not None:
        return FrameRangeReader(open_clip(whole, fps=fps, threads=threads), *frames)
    if not os.path.exists(source):
        raise ClipReadError(f"{os.fspath(source)}: does not exist")
    if os.path.isdir(source):
        return FramesReader(source, fps=fps)
    if has_suffix(source, IMAGE_SUFFIXES):
        return FramesReader([source], fps=fps)
    if has_suffix(source, NIFTI_SUFFIXES):
        return NiftiReader(source, fps=fps)
    if has_suffix(source, DICOM_SUFFIXES) or (not has_suffix(source, VIDEO_SUFFIXES) and is_dicom(source)):
        return open_dicom(source, fps=fps, threads=threads)
    return VideoReader(source, threads=threads)
