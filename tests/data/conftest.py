# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

HEIGHT, WIDTH, BLOCK = 64, 96, 12  # a row of 8 black or white blocks at the top spells the frame number
TEXTURE = np.random.default_rng(0).integers(40, 215, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)


def numbered_frame(number: int) -> np.ndarray:
    """A moving texture ``(64, 96, 3)`` that carries its number, readable also after lossy compression."""
    frame = np.roll(TEXTURE.repeat(8, 0).repeat(8, 1), number * 2, 1)
    for bit in range(8):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return frame


def frame_number(frame: Any) -> int:
    """The number that :func:`numbered_frame` wrote into a frame ``(64, 96, 3)``."""
    blocks = np.asarray(frame)[2 : BLOCK - 2, :, :].mean((0, 2)).reshape(8, BLOCK)[:, 2:-2].mean(1)
    return sum(1 << bit for bit in range(8) if blocks[bit] > 128)


def encode(
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
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video() -> Any:
    return encode


@pytest.fixture(scope="session")
def number_of() -> Any:
    return frame_number


@pytest.fixture(scope="session")
def make_frame() -> Any:
    return numbered_frame
