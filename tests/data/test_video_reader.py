# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from endofm_monai.data import ClipReadError, VideoReader

OPEN_GOP = "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3"
QUIET = ":log-level=none"
VIDEOS = {
    "h264.mp4": {"options": {"g": "12"}},
    "h264_fragmented.mp4": {"options": {"g": "12"}, "muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_open_gop.mp4": {"options": {"x264-params": OPEN_GOP}},
    "h264_open_gop.mkv": {"options": {"x264-params": OPEN_GOP}},
    "h264_open_gop.ts": {"options": {"x264-params": OPEN_GOP}},
    "h264_intra_refresh.mp4": {"options": {"x264-params": "keyint=16:intra-refresh=1:bframes=0"}},
    "h264_without_times.avi": {"options": {"g": "12"}},
    "h264_gray.mp4": {"pix_fmt": "gray"},
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h265_open_gop.mp4": {"codec": "libx265", "options": {"x265-params": OPEN_GOP + QUIET}},
    "h265_open_gop.mkv": {"codec": "libx265", "options": {"x265-params": OPEN_GOP + QUIET}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}},
    "wmv.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "gray_10_bit.mkv": {"codec": "ffv1", "pix_fmt": "gray10le"},
    "alpha.mov": {"codec": "qtrle", "pix_fmt": "argb"},
    "alpha.mkv": {"codec": "ffv1", "pix_fmt": "bgra"},
}


def decode_everything(path: Path) -> np.ndarray:
    """All frames ``(T, H, W, 3)`` as plain PyAV gives them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(reader: VideoReader, indices: Any) -> np.ndarray:
    return reader.read(indices).permute(1, 2, 3, 0).numpy()


def assert_random_access(path: Path, expected: np.ndarray) -> None:
    draw = random.Random(0)
    with VideoReader(path) as reader:
        assert reader.probe().frames == len(expected)
        for count in (1, 1, 1, 2, 2, 5, 5, 20):
            indices = draw.choices(range(len(expected)), k=count)
            np.testing.assert_array_equal(read(reader, indices), expected[indices])


@pytest.fixture(params=["seek", "walk"])
def always_seek(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endofm_monai.data.video_reader._SEEK_DISTANCE", 0 if request.param == "seek" else 1000)


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.usefixtures("always_seek")
def test_reads_the_frames_that_decoding_everything_gives(
    tmp_path: Path, write_video: Any, number_of: Any, name: str
) -> None:
    path = write_video(tmp_path / name, **VIDEOS[name])
    expected = decode_everything(path)
    assert [number_of(frame) for frame in expected] == list(range(48))
    assert_random_access(path, expected)
    info = VideoReader(path).probe()
    assert (info.height, info.width) == (64, 96)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration == pytest.approx(48 / 25, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264_open_gop.mp4", "h264_open_gop.mkv", "h265_open_gop.mp4", "mpeg2.ts", "mjpeg.mov"]
)
@pytest.mark.usefixtures("always_seek")
def test_decodes_no_more_than_it_must(tmp_path: Path, write_video: Any, monkeypatch: Any, name: str) -> None:
    reader = VideoReader(write_video(tmp_path / name, **VIDEOS[name]))
    reader.probe()
    decoded: list[tuple[Any, int]] = []

    def count(spans: Any, needed: Any = (), show: Any = reader._show) -> Any:
        frames = list(show(spans, needed))
        decoded.append((spans, len(frames)))
        return frames

    monkeypatch.setattr(reader, "_show", count)
    wanted = [2, 23, 40]  # in an open group, 23 leads the keyframe at 24
    reader.read(wanted)
    assert len(decoded) == 1  # not once more from the beginning
    spans, frames = decoded[0]
    packets = sum(stop - start for start, stop in spans)
    assert packets == 3 if name.startswith("mjpeg") else 3 < packets < 36
    if name in ("h264.mp4", "mpeg2.ts"):  # B-frames on which nothing depends are left out
        assert frames < packets


def test_threads_change_nothing(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "video.mp4", options={"g": "12"})
    indices = [47, 3, 20, 20]
    assert VideoReader(path, threads=2).read(indices).equal(VideoReader(path).read(indices))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, write_video: Any, suffix: str) -> None:
    gaps = random.Random(1).choices([20, 40, 60, 200], k=48)
    times = [sum(gaps[:index]) for index in range(48)]
    path = write_video(tmp_path / f"variable{suffix}", times=times, options={"g": "12"})
    assert_random_access(path, decode_everything(path))
    info = VideoReader(path).probe()
    assert info.duration == pytest.approx(times[-1] / 1000, abs=0.21)
    assert info.fps == pytest.approx(48 / info.duration)


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
def test_edit_lists(
    tmp_path: Path, write_video: Any, number_of: Any, edits: list[tuple[int, int | None]], shown: list[int]
) -> None:
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
def test_rotation(tmp_path: Path, write_video: Any, matrix: list[int], turn: Any) -> None:
    path = write_video(tmp_path / "turned.mp4", frames=5)
    expected = turn(decode_everything(path)[3])
    patch_mp4(path, matrix=matrix)
    info = VideoReader(path).probe()
    assert (info.height, info.width) == expected.shape[:2]
    np.testing.assert_array_equal(read(VideoReader(path), [3])[0], expected)


@pytest.mark.parametrize("skipped", [12, 17], ids=["at an open group", "within a group"])
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_video_without_its_beginning(
    tmp_path: Path, write_video: Any, number_of: Any, suffix: str, skipped: int
) -> None:
    """Frames that lean on what was cut off are not shown, by any player, and not counted."""
    whole = write_video(tmp_path / f"whole{suffix}", options={"x264-params": OPEN_GOP})
    path = tmp_path / f"part{suffix}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][skipped:]:
            packet.stream = stream
            target.mux(packet)
    expected = decode_everything(path)
    assert number_of(expected[0]) > skipped
    assert_random_access(path, expected)


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
    np.testing.assert_allclose(read(VideoReader(path), [0])[0, 8, 8], expected, atol=1)


def test_video_with_one_frame(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "one.mp4", frames=1)
    info = VideoReader(path).probe()
    assert (info.frames, info.fps, info.duration) == (1, 25, 0.04)
    assert read(VideoReader(path), [0, 0]).shape == (2, 64, 96, 3)


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
def test_truncated_video_reads_up_to_the_cut(tmp_path: Path, write_video: Any, video: dict[str, Any]) -> None:
    path = write_video(tmp_path / video.pop("path"), **{"options": {"g": "12"}, **video})
    expected = decode_everything(path)
    reader = VideoReader(cut(path))
    assert reader.probe().frames == 48
    np.testing.assert_array_equal(read(reader, [0, 5, 9]), expected[[0, 5, 9]])
    with pytest.raises(ClipReadError, match=rf"^{path}: frame 46 cannot be decoded: \d\d of 48 frames are readable"):
        reader.read([2, 46, 47])
    np.testing.assert_array_equal(read(reader, [3]), expected[[3]])


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_frame_that_is_cut_in_two_is_not_readable(tmp_path: Path, write_video: Any, codec: str) -> None:
    path = write_video(tmp_path / "cut.avi", codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
    path.write_bytes(path.read_bytes()[: packet.pos + packet.size // 2])
    reader = VideoReader(path)
    assert reader.read([29]).shape == (3, 1, 64, 96)
    with pytest.raises(ClipReadError, match=r"frame 30 cannot be decoded: 30 of \d\d frames are readable"):
        reader.read([30])


def test_damaged_frame_does_not_shift_the_others(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "damaged.mov", "mjpeg", pix_fmt="yuvj420p")
    expected = decode_everything(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    reader = VideoReader(path)
    np.testing.assert_array_equal(read(reader, [19, 21, 47]), expected[[19, 21, 47]])
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
def test_broken_file_is_named_in_one_line(tmp_path: Path, write_video: Any, kind: str) -> None:
    path = tmp_path / "broken.mp4"
    BROKEN[kind](path, write_video)
    with pytest.raises(ClipReadError) as raised:
        VideoReader(path).probe()
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_metadata_in_another_encoding(tmp_path: Path, write_video: Any) -> None:
    path = write_video(tmp_path / "video.mp4", frames=3)
    path.write_bytes(path.read_bytes().replace(b"VideoHandler", b"Vid\xe9oHandler"))
    assert VideoReader(path).read([2]).shape == (3, 1, 64, 96)


@pytest.mark.parametrize("index", [-1, 48])
def test_frame_outside_the_clip(tmp_path: Path, write_video: Any, index: int) -> None:
    path = write_video(tmp_path / "video.mp4")
    with pytest.raises(ClipReadError, match=rf"^{path}: frame {index} is outside the clip, which has 48 frames$"):
        VideoReader(path).read([0, index])
