# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Videos whose frames tell their number, and what reading them must give."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from endofm_monai.data import VideoReader

HEIGHT, WIDTH, BLOCK = 64, 96, 12  # a row of 8 black or white blocks at the top spells the frame number
TEXTURE = np.random.default_rng(0).integers(40, 215, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)


def make_frame(number: int) -> np.ndarray:
    """A moving texture ``(64, 96, 3)`` that carries its number, readable also after lossy compression."""
    frame = np.roll(TEXTURE.repeat(8, 0).repeat(8, 1), number * 2, 1)
    for bit in range(8):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: Any) -> int:
    """The number that :func:`make_frame` wrote into a frame ``(64, 96, 3)``."""
    blocks = np.asarray(frame)[2 : BLOCK - 2, :, :].mean((0, 2)).reshape(8, BLOCK)[:, 2:-2].mean(1)
    return sum(1 << bit for bit in range(8) if blocks[bit] > 128)


def write_video(
    path: Path,
    codec: str = "libx264",
    frames: int = 48,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    muxing: dict[str, str] | None = None,
) -> Path:
    """Write numbered frames to a video, at 25 frames per second or at ``times`` in milliseconds."""
    with av.open(str(path), "w", options=muxing or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        time_base = Fraction(1, 1000 if times else 25)
        stream.codec_context.time_base = time_base
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(make_frame(number), format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_everything(path: Path) -> np.ndarray:
    """All frames ``(T, H, W, 3)`` as plain PyAV gives them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def frames_of(reader: VideoReader, indices: Any) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` of a reader."""
    return reader.read(indices).permute(1, 2, 3, 0).numpy()


def assert_random_access(path: Path, expected: np.ndarray) -> None:
    """Check that frames in any order, and all in a row, are those that decoding everything gave."""
    draw = random.Random(0)
    with VideoReader(path) as reader:
        assert reader.probe().frames == len(expected)
        for count in (1, 1, 1, 2, 2, 5, 5, 20):
            indices = draw.choices(range(len(expected)), k=count)
            np.testing.assert_array_equal(frames_of(reader, indices), expected[indices])
        np.testing.assert_array_equal(frames_of(reader, range(len(expected))), expected)
