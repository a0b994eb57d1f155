# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.readers.base import (
    ClipInfo,
    ClipReader,
    ClipReadError,
    FrameRangeReader,
    join_frames,
    split_frames,
)
from endofm_monai.data.readers.dicom import DicomReader, open_dicom
from endofm_monai.data.readers.images import FramesReader
from endofm_monai.data.readers.nifti import NiftiReader
from endofm_monai.data.readers.open_clip import EndoFMClipReader, clip_metadata, open_clip, register_readers
from endofm_monai.data.readers.paths import find_clips
from endofm_monai.data.readers.video import VideoReader

__all__ = [
    "ClipInfo",
    "ClipReadError",
    "ClipReader",
    "DicomReader",
    "EndoFMClipReader",
    "FrameRangeReader",
    "FramesReader",
    "NiftiReader",
    "VideoReader",
    "clip_metadata",
    "find_clips",
    "join_frames",
    "open_clip",
    "open_dicom",
    "register_readers",
    "split_frames",
]
