# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from endofm_monai.utils import atomic_path

MAX_VIDEO_SIDE = 16384  # that x264 encodes


def video_rate(fps: float) -> Fraction:
    """Give the rate to state in a file: frames a second, or below one seconds a frame, by at most 1001."""
    return 1 / video_rate(1 / fps) if fps < 1 else Fraction(fps).limit_denominator(1001)


@contextmanager
def open_video(path: str | os.PathLike, fps: float, **options: object) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an H.264 video in mp4, as common players and browsers show it, frame by frame and atomically.

    H.264 wants even sides: an odd one gets its last row or column twice. Frames with a side above 16,384 pixels, more
    than can be encoded, are scaled down. ``options`` are those of the encoder x264, as ``crf`` (quality, 0 is lossless;
    a step of 6 about halves the size of the file), 18 by default.

    Yields:
        a function that writes a uint8 RGB frame ``(H, W, 3)``; all must have the size of the first one.
    """
    if not fps > 0:
        raise ValueError(f"{os.fspath(path)}: `fps` must be positive, but got {fps}.")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        settings = {name: str(value) for name, value in {"crf": 18, "preset": "veryfast", **options}.items()}
        stream = container.add_stream("libx264", video_rate(fps), options=settings)
        stream.pix_fmt = "yuv420p"
        shapes: list[tuple[int, ...]] = []

        def write(frame: np.ndarray) -> None:
            shapes.append(frame.shape)
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shapes[0]:
                raise ValueError(
                    f"{os.fspath(path)}: frame {len(shapes) - 1} must be uint8 (H, W, 3) like the first one, "
                    f"{shapes[0]}, but is {frame.dtype} {frame.shape}."
                )
            if max(frame.shape) > MAX_VIDEO_SIDE:
                image = Image.fromarray(frame)
                image.thumbnail((MAX_VIDEO_SIDE, MAX_VIDEO_SIDE))
                frame = np.asarray(image)
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if len(shapes) == 1:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))

        yield write
        if not shapes:
            raise ValueError(f"{os.fspath(path)}: there is no frame to write.")
        container.mux(stream.encode())


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float, **options: object) -> None:
    """Write all ``frames`` to a video; see :func:`open_video`."""
    with open_video(path, fps, **options) as write:
        for frame in frames:
            write(frame)
