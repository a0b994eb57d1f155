# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils import MetaKeys, ensure_tuple

from endofm_monai.data.clip_files import VIDEO_SUFFIXES, has_suffix
from endofm_monai.data.clip_reader import ClipReader
from endofm_monai.data.opener import open_clip

__all__ = ["EndoFMClipReader", "clip_metadata", "register_readers"]


def clip_metadata(reader: ClipReader, indices: torch.Tensor) -> dict[str, Any]:
    """Describe frames of a clip in MONAI's terms.

    Args:
        reader: the clip's reader.
        indices: int64 tensor ``(T,)``, the frames that are read.

    Returns:
        the metadata of a clip ``(3, T, H, W)``: ``filename_or_obj``, ``spatial_shape`` (of what is read, T, H, W) and
        the channel's dimension, which MONAI knows, and ``frame_indices``, ``frames`` (in the whole clip) and ``fps``.
    """
    info = reader.probe()
    return {
        "filename_or_obj": reader.path,
        MetaKeys.SPATIAL_SHAPE: np.array([len(indices), info.height, info.width]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        "frame_indices": indices,
        "frames": info.frames,
        "fps": info.fps,
    }


class EndoFMClipReader(ImageReader):
    """Lets MONAI's ``LoadImage`` read clips, as ``(3, T, H, W)``.

    After :func:`register_readers` it is chosen by itself for video files. By name, as in
    ``LoadImage(reader="EndoFMClipReader")``, it reads whatever :func:`endofm_monai.data.open_clip` opens.

    Args:
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.
    """

    def __init__(self, **reader_options: Any) -> None:
        self.reader_options = reader_options

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        """Say whether all files are videos by their names: other files are left to MONAI's own readers."""
        return all(has_suffix(name, VIDEO_SUFFIXES) for name in ensure_tuple(filename))

    def read(self, data: Sequence[str | os.PathLike] | str | os.PathLike, **kwargs: Any) -> ClipReader:
        """Open one clip.

        Args:
            data: a file or folder, or a list of frame images.
            kwargs: arguments of :func:`endofm_monai.data.open_clip`, which go before those of the constructor.

        Raises:
            ClipReadError: when it cannot be opened.
        """
        paths = ensure_tuple(data)
        return open_clip(paths[0] if len(paths) == 1 else paths, **{**self.reader_options, **kwargs})

    def get_data(self, img: ClipReader) -> tuple[np.ndarray, dict[str, Any]]:
        """Read all frames of a clip and close it.

        Args:
            img: what ``read`` gave.

        Returns:
            uint8 RGB array ``(3, T, H, W)`` and its metadata, see :func:`clip_metadata`.

        Raises:
            ClipReadError: when a frame cannot be read.
        """
        with img as reader:
            indices = torch.arange(reader.probe().frames)
            return reader.read(indices).numpy(), clip_metadata(reader, indices)


def register_readers() -> None:
    """Add :class:`EndoFMClipReader` to the readers of MONAI's ``LoadImage``; calling it again changes nothing."""
    SUPPORTED_READERS[EndoFMClipReader.__name__.lower()] = EndoFMClipReader
