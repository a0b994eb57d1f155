# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import pytest
from numbered_videos import assert_random_access, decode_everything, frames_of, number_of, write_video

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
    "mpeg1.m1v": {"codec": "mpeg1video", "options": {"g": "12", "bf": "2", "qmin": "8", "qmax": "8"}},
    "mpeg2.m2v": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}},
    "wmv.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "gray_10_bit.mkv": {"codec": "ffv1", "pix_fmt": "gray10le"},
    "alpha.mov": {"codec": "qtrle", "pix_fmt": "argb"},
    "alpha.mkv": {"codec": "ffv1", "pix_fmt": "bgra"},
}


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.usefixtures("always_seek")
def test_reads_the_frames_that_decoding_everything_gives(tmp_path: Path, name: str) -> None:
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
def test_decodes_no_more_than_it_must(tmp_path: Path, monkeypatch: Any, name: str) -> None:
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


def test_threads_change_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", options={"g": "12"})
    indices = [47, 3, 20, 20]
    assert VideoReader(path, threads=2).read(indices).equal(VideoReader(path).read(indices))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    gaps = random.Random(1).choices([20, 40, 60, 200], k=48)
    times = [sum(gaps[:index]) for index in range(48)]
    path = write_video(tmp_path / f"variable{suffix}", times=times, options={"g": "12"})
    assert_random_access(path, decode_everything(path))
    info = VideoReader(path).probe()
    assert info.duration == pytest.approx(times[-1] / 1000, abs=0.21)
    assert info.fps == pytest.approx(48 / info.duration)


@pytest.mark.parametrize("skipped", [12, 17], ids=["at an open group", "within a group"])
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_video_without_its_beginning(tmp_path: Path, suffix: str, skipped: int) -> None:
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


def test_video_with_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", frames=1)
    info = VideoReader(path).probe()
    assert (info.frames, info.fps, info.duration) == (1, 25, 0.04)
    assert frames_of(VideoReader(path), [0, 0]).shape == (2, 64, 96, 3)


def test_metadata_in_another_encoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", frames=3)
    path.write_bytes(path.read_bytes().replace(b"VideoHandler", b"Vid\xe9oHandler"))
    assert VideoReader(path).read([2]).shape == (3, 1, 64, 96)


@pytest.mark.parametrize("index", [-1, 48])
def test_frame_outside_the_clip(tmp_path: Path, index: int) -> None:
    path = write_video(tmp_path / "video.mp4")
    with pytest.raises(ClipReadError, match=rf"^{path}: frame {index} is outside the clip, which has 48 frames$"):
        VideoReader(path).read([0, index])


@pytest.mark.parametrize("name", ["h264_open_gop.mkv", "mpeg2.ts", "mpeg4_b_frames.avi"])
def test_a_file_that_is_opened_again_is_known(tmp_path: Path, monkeypatch: Any, name: str) -> None:
    path = write_video(tmp_path / name, **VIDEOS[name])
    first = VideoReader(path).probe()
    passes: list[str] = []
    whole = VideoReader._pass_over
    monkeypatch.setattr(VideoReader, "_pass_over", lambda self: passes.append(self.path) or whole(self))
    assert VideoReader(path).probe() == first
    assert_random_access(path, decode_everything(path))
    assert passes == []
    write_video(path, **{**VIDEOS[name], "frames": 30})  # another video in its place
    assert_random_access(path, decode_everything(path))
    assert len(passes) == 1
