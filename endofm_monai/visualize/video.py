# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

from endofm_monai.utils import atomic_path

__all__ = ["write_video"]


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float, crf: int = 18) -> int:
    """Write frames to an H.264 video in mp4 that common players and browsers show, atomically.

    Frames are encoded as they come, so an iterator of any length needs the memory of a few frames. H.264 wants even
    sides: an odd one gets its last row or column twice.

    Args:
        path: the video to write.
        frames: uint8 RGB frames ``(H, W, 3)`` of equal size.
        fps: frames per second.
        crf: quality, 0 (lossless) to 51; a step of 6 about halves the size of the file.

    Returns:
        number of frames written.

    Raises:
        ValueError: when there is no frame, ``fps`` is not positive, or a frame is no uint8 RGB of the first one's size.

    Example::

        write_video("zeros.mp4", (numpy.zeros((64, 64, 3), numpy.uint8) for _ in range(10)), fps=25)
    """
    if not fps > 0:
        raise ValueError(f"{os.fspath(path)}: `fps` must be positive, but got {fps}.")
    count = 0
    size: tuple[int, ...] = ()
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            size = size or frame.shape
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != size:
                raise ValueError(
                    f"{os.fspath(path)}: frame {count} must be uint8 {size}, but is {frame.dtype} {frame.shape}."
                )
            even = np.pad(frame, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            if count == 0:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
            count += 1
        if count == 0:
            raise ValueError(f"{os.fspath(path)}: there is no frame to write.")
        container.mux(stream.encode())
    return count
