# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Packets that are no frame, that set the decoder for others, or that say more than FFmpeg's Python binding knows."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import assert_random_access, decode_everything, frames_of, make_frame, number_of, write_video
from PIL import Image, ImageOps

from endofm_monai.data import ClipReadError, VideoReader

PICTURE = b"\0\0\1\xb6"  # of MPEG-4, how one begins
NOT_CODED = PICTURE + b"\x55\x5f"  # an MPEG-4 picture with `vop_coded` 0


def packets_of(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def mux(source: Path, path: Path, packets: Sequence[tuple[bytes, int]]) -> Path:
    """Write packets, and their times in milliseconds, of the codec of a video."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(opened.streams.video[0])
        for number, (data, time) in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, Fraction(1, 1000)
            packet.is_keyframe = number == 0
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("hidden.webm", "libvpx"), ("hidden.mkv", "mpeg4"), ("hidden.avi", "mpeg4")]
)
@pytest.mark.usefixtures("always_seek")
def test_packets_without_a_frame(tmp_path: Path, name: str, codec: str) -> None:
    """VP8 says of a packet that it is not shown, MPEG-4 that it holds nothing."""
    source = write_video(tmp_path / f"source{Path(name).suffix}", codec, 24, options={"g": "60", "auto-alt-ref": "0"})
    packets = [(bytes(packet), 40 * number) for number, packet in enumerate(packets_of(source))]
    for place in (7, 15):
        data, time = packets[place]
        packets[place] = (bytes([data[0] & ~0x10]) + data[1:] if codec == "libvpx" else NOT_CODED), time
    path = mux(source, tmp_path / name, packets)
    expected = decode_everything(path)
    assert len(expected) == 22
    assert_random_access(path, expected)


def test_packets_of_two_frames(tmp_path: Path) -> None:
    """As Xvid and DivX write AVI: a packet holds a frame and the next B-frame, a later one nothing in its place."""
    source = write_video(tmp_path / "source.avi", "mpeg4", 37, options={"g": "12", "bf": "2", "b_strategy": "0"})
    first, *coded = map(bytes, packets_of(source))
    packets = [first.replace(PICTURE, b"\0\0\1\xb2DivX503b1393p" + PICTURE)]
    for place in range(0, 36, 3):
        packets += [coded[place] + coded[place + 1], coded[place + 2], NOT_CODED]
    path = mux(source, tmp_path / "packed.avi", [(data, 40 * number) for number, data in enumerate(packets)])
    expected = decode_everything(path)
    assert len(expected) == 37
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(frames_of(reader, range(37)), expected)
        assert reader.probe().fps == 25
        np.testing.assert_allclose(reader.times(), np.arange(37) / 25)


def test_a_palette_comes_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "palette.mov", "qtrle", pix_fmt="gray")
    expected = decode_everything(path)
    assert expected.max() > 200
    assert_random_access(path, expected)


def test_frames_that_a_recorder_dropped_are_not_missed(tmp_path: Path) -> None:
    """Their samples in MP4 and MOV are empty."""
    path = write_video(tmp_path / "dropped.mov", "mjpeg", 30, pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    table = data.index(b"stsz") + 16
    data[table + 4 * 28 : table + 4 * 30] = bytes(8)
    path.write_bytes(data)
    assert VideoReader(path).probe().frames == 28
    assert VideoReader(path).read([27]).shape == (3, 1, 64, 96)


@pytest.mark.parametrize(("orientation", "size"), [(1, (64, 96)), (2, (64, 96)), (5, (96, 64)), (6, (96, 64))])
def test_exif_in_the_frames(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    source, exif, path = tmp_path / "frame.jpg", Image.Exif(), tmp_path / "exif.mjpeg"
    exif[0x010F], exif[0x0112] = "maker", orientation
    frames = []
    for number in range(5):
        Image.fromarray(make_frame(number)).save(source, exif=exif, quality=95)
        frames.append(source.read_bytes())
    path.write_bytes(b"".join(frames))
    with VideoReader(path) as reader:
        assert (reader.probe().frames, reader.probe().height, reader.probe().width) == (5, *size)
        shown = reader.read([3])[:, 0].permute(1, 2, 0).numpy().astype(int)
    image = Image.fromarray(make_frame(3))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert np.abs(shown - expected).mean() < 8


@pytest.mark.parametrize("rate", [24, 30, 60])
@pytest.mark.parametrize(
    ("name", "codec"), [("bare.h264", "libx264"), ("bare.hevc", "libx265"), ("bare.m2v", "mpeg2video")]
)
def test_the_rate_of_a_bare_stream_is_what_it_states(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = tmp_path / name
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w", format="mpeg2video" if name.endswith("m2v") else None) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    with VideoReader(path) as reader:
        assert (reader.probe().frames, reader.probe().fps) == (12, rate)
        np.testing.assert_allclose(reader.times(), np.arange(12) / rate)


def test_the_rate_that_is_given_counts_when_a_bare_stream_is_opened_again(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:vui-timing-info=0"}
    path = write_video(tmp_path / "bare.hevc", "libx265", frames=4, options=options)
    assert [VideoReader(path, fps=fps).probe().fps for fps in (50.0, 10.0)] == [50, 10]


def test_a_damaged_beginning_does_not_shift_the_others(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mov", "mjpeg", pix_fmt="yuvj420p")
    expected = decode_everything(path)
    first = packets_of(path)[0]
    data = bytearray(path.read_bytes())
    data[first.pos : first.pos + first.size] = bytes(first.size)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        assert reader.probe().frames == 48
        np.testing.assert_array_equal(frames_of(reader, [12, 40]), expected[[12, 40]])
        with pytest.raises(ClipReadError, match="frame 0 cannot be decoded: 47 of 48 frames are readable"):
            reader.read([0])


@pytest.mark.parametrize("name", ["thumbnail.mkv", "thumbnail.ts"])
def test_a_picture_before_the_video_is_not_the_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        picture, video = (container.add_stream("mpeg2video", rate=25) for _ in range(2))
        for stream, height in ((picture, 32), (video, 64)):
            stream.width, stream.height, stream.pix_fmt = 96, height, "yuv420p"
        container.mux(picture.encode(av.VideoFrame(96, 32, "yuv420p")) + picture.encode())
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(make_frame(number), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    with VideoReader(path) as reader:
        assert reader.probe().frames == 20
        assert number_of(frames_of(reader, [7])[0]) == 7


def test_an_avi_palette(tmp_path: Path) -> None:
    """Of uncompressed 8-bit AVI, as frame grabbers write it."""
    path, (height, width) = tmp_path / "gray.avi", (16, 32)
    frames = [np.full((height, width), 50 * number, np.uint8) for number in range(5)]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data

    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    header = chunk(b"avih", struct.pack("<14I", 40000, 0, 0, 0, 5, 0, 1, 0, width, height, 0, 0, 0, 0))
    stream = chunk(b"strh", b"vids\0\0\0\0" + struct.pack("<12I", 0, 0, 0, 1, 25, 0, 5, 0, 0, 0, 0, 0))
    stream += chunk(b"strf", struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 256, 0) + palette)
    header += chunk(b"LIST", b"strl" + stream)
    movie = b"movi" + b"".join(chunk(b"00db", frame.tobytes()) for frame in frames)
    path.write_bytes(chunk(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + header) + chunk(b"LIST", movie)))
    with VideoReader(path) as reader:
        assert reader.probe().frames == 5
        for order in ([3, 1], [4], [0, 2]):
            assert frames_of(reader, order)[:, 5, 5, 0].tolist() == [50 * number for number in order]
