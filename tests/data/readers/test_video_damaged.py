# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Videos that are damaged, cut off, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from numbered_videos import decode_everything, frames_of, write_video

from endofm_monai.data import ClipReadError, VideoReader


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(
    "video",
    [
        {"path": "cut.mp4", "muxing": {"movflags": "faststart"}},
        {"path": "cut.mkv"},
        {"path": "cut.webm", "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    ],
    ids=lambda video: video["path"],
)
def test_truncated_video_reads_up_to_the_cut(tmp_path: Path, video: dict[str, Any]) -> None:
    path = write_video(tmp_path / video.pop("path"), **{"options": {"g": "12"}, **video})
    expected = decode_everything(path)
    reader = VideoReader(cut(path))
    assert reader.probe().frames == 48
    np.testing.assert_array_equal(frames_of(reader, [0, 5, 9]), expected[[0, 5, 9]])
    with pytest.raises(ClipReadError, match=rf"^{path}: frame 46 cannot be decoded: \d\d of 48 frames are readable"):
        reader.read([2, 46, 47])
    np.testing.assert_array_equal(frames_of(reader, [3]), expected[[3]])


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_frame_that_is_cut_in_two_is_not_readable(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "cut.avi", codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
    path.write_bytes(path.read_bytes()[: packet.pos + packet.size // 2])
    reader = VideoReader(path)
    assert reader.read([29]).shape == (3, 1, 64, 96)
    with pytest.raises(ClipReadError, match=r"frame 30 cannot be decoded: 30 of \d\d frames are readable"):
        reader.read([30])


def test_what_follows_a_hole_in_a_transport_stream_is_read(tmp_path: Path) -> None:
    """FFmpeg looks through 64 KiB, and then asks to be asked again; so it ends after what a recorder fills up."""
    path = write_video(tmp_path / "hole.ts", "mpeg2video")
    expected = decode_everything(path)
    path.write_bytes(path.read_bytes() + bytes(200_000) + path.read_bytes() + bytes(200_000))
    with VideoReader(path) as reader:
        assert reader.probe().frames == 96
        np.testing.assert_array_equal(frames_of(reader, [3, 47, 60, 95]), expected[[3, 47, 12, 47]])


def test_damaged_frame_does_not_shift_the_others(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mov", "mjpeg", pix_fmt="yuvj420p")
    expected = decode_everything(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    reader = VideoReader(path)
    np.testing.assert_array_equal(frames_of(reader, [19, 21, 47]), expected[[19, 21, 47]])
    with pytest.raises(ClipReadError, match="frame 20 cannot be decoded: 47 of 48 frames are readable"):
        reader.read([19, 20])


def write_audio(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame(16, 16, "yuvj420p")) + picture.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame) + stream.encode())


BROKEN = {
    "missing": lambda path, encode: None,
    "empty": lambda path, encode: path.touch(),
    "text": lambda path, encode: path.write_text("no video"),
    "folder": lambda path, encode: path.mkdir(),
    "without index": lambda path, encode: cut(encode(path)),
    "audio only": lambda path, encode: write_audio(path),
    "audio with a cover": lambda path, encode: write_audio(path, cover=True),
    "unknown codec": lambda path, encode: path.write_bytes(encode(path).read_bytes().replace(b"avc1", b"zzzz")),
    "noise": lambda path, encode: path.write_bytes(
        encode(path, muxing={"movflags": "faststart"}).read_bytes().partition(b"mdat")[0] + b"mdat" + bytes(9999)
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.mp4"
    BROKEN[kind](path, write_video)
    with pytest.raises(ClipReadError) as raised:
        VideoReader(path).probe()
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
