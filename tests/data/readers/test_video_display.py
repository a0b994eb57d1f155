# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""How a video is shown, where its file asks for more than one frame after the other."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from numbered_videos import assert_random_access, decode_everything, frames_of, number_of, write_video

from endofm_monai.data import VideoReader


def boxes(data: bytes, start: int, stop: int) -> dict[bytes, tuple[int, int]]:
    """Position and size of the boxes of an MP4 file between two positions."""
    found = {}
    while start < stop:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        found[kind] = start, size
        start += size
    return found


def patch_mp4(path: Path, edits: list[tuple[int, int]] | None = None, matrix: list[int] | None = None) -> None:
    """Write an edit list (durations in ms, media times) or a display matrix (a, b, c, d) into an MP4 file."""
    data = bytearray(path.read_bytes())
    movie = boxes(data, 0, len(data))[b"moov"]
    track = boxes(data, movie[0] + 8, sum(movie))[b"trak"]
    inner = boxes(data, track[0] + 8, sum(track))
    if matrix:
        a, b, c, d = (value << 16 for value in matrix)
        place = inner[b"tkhd"][0] + 48
        data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    if edits:
        entries = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
        box = struct.pack(">I4sI4sII", len(entries) + 24, b"edts", len(entries) + 16, b"elst", 0, len(edits)) + entries
        start, size = inner[b"edts"]
        data[start : start + size] = box
        for place, old in (movie, track):
            data[place : place + 4] = struct.pack(">I", old + len(box) - size)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(800, 10)], [*range(10, 30)]),
        ([(400, 5), (400, 30)], [*range(5, 15), *range(30, 40)]),
        ([(400, 30), (400, 5)], [*range(30, 40), *range(5, 15)]),
        ([(400, 10), (400, 10)], [*range(10, 20), *range(10, 20)]),
        ([(1000, None), (800, 10)], [*range(10, 30)]),
    ],
    ids=["part", "two parts", "backwards", "twice", "late start"],
)
@pytest.mark.usefixtures("always_seek")
def test_edit_lists(tmp_path: Path, edits: list[tuple[int, int | None]], shown: list[int]) -> None:
    path = write_video(tmp_path / "edited.mp4", options={"g": "12", "bf": "2"})
    # 512 units of media time a frame; two frames pass before the first one is shown
    patch_mp4(path, edits=[(time, -1 if first is None else (first + 2) * 512) for time, first in edits])
    expected = decode_everything(path)
    assert [number_of(frame) for frame in expected] == shown
    assert_random_access(path, expected)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ([1, 0, 0, 1], lambda frame: frame),
        ([0, 1, -1, 0], lambda frame: np.rot90(frame, -1)),
        ([-1, 0, 0, -1], lambda frame: np.rot90(frame, 2)),
        ([0, -1, 1, 0], lambda frame: np.rot90(frame)),
        ([-1, 0, 0, 1], lambda frame: frame[:, ::-1]),
        ([1, 0, 0, -1], lambda frame: frame[::-1]),
        ([0, 1, 1, 0], lambda frame: frame.swapaxes(0, 1)),
    ],
    ids=["none", "clockwise", "half", "counterclockwise", "mirrored", "upside down", "transposed"],
)
def test_rotation(tmp_path: Path, matrix: list[int], turn: Any) -> None:
    path = write_video(tmp_path / "turned.mp4", frames=5)
    expected = turn(decode_everything(path)[3])
    patch_mp4(path, matrix=matrix)
    info = VideoReader(path).probe()
    assert (info.height, info.width) == expected.shape[:2]
    np.testing.assert_array_equal(frames_of(VideoReader(path), [3])[0], expected)


@pytest.mark.parametrize(("matrix", "red", "blue"), [(6, 0.299, 0.114), (1, 0.2126, 0.0722)], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colors_follow_the_tags_of_the_file(
    tmp_path: Path, matrix: int, red: float, blue: float, full_range: bool
) -> None:
    path = tmp_path / "color.mkv"
    yuv = np.array([120, 90, 170], np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
        frame = av.VideoFrame.from_ndarray(np.broadcast_to(yuv[:, None, None], (3, 16, 16)).copy(), format="yuv444p")
        for tagged in (stream.codec_context, frame):
            tagged.colorspace, tagged.color_range = matrix, 1 + full_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    y, u, v = (yuv - [0, 128, 128.0]) / 255 if full_range else (yuv - [16, 128, 128.0]) / [219, 224, 224]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    expected = 255 * np.array([r, (y - red * r - blue * b) / (1 - red - blue), b])
    np.testing.assert_allclose(frames_of(VideoReader(path), [0])[0, 8, 8], expected, atol=1)


def test_what_the_stream_crops_is_not_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mp4", frames=4, options={"crf": "1"})
    with av.open(str(path)) as source, (tmp_path / "cropped.h264").open("wb") as file:
        (stream,) = source.streams.video
        crop = "h264_metadata=crop_left=6:crop_right=2:crop_top=4"
        filters = BitStreamFilterContext(f"h264_mp4toannexb,{crop}", stream)
        for packet in source.demux(stream):
            file.writelines(bytes(part) for part in filters.filter(packet if packet.size else None))
    whole, cropped = (VideoReader(tmp_path / name).read([2]).int() for name in ("whole.mp4", "cropped.h264"))
    assert (whole[..., 4:, 6:-2] - cropped).abs().float().mean() < 3  # colors are interpolated otherwise
