# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Videos whose containers say what cannot be true, and which decode without loss."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered_videos import assert_random_access, decode_everything, frames_of, number_of, write_video

from endofm_monai.data import ClipReadError, VideoReader
from endofm_monai.data.readers import container
from tests.support.recordings import add_sound, copy_packets, number_of_field_picture, write_fields

CODECS = {
    "h264": {"options": {"g": "12"}},
    "h264_without_b_frames": {"options": {"g": "12", "bf": "0"}},
    "h265": {"codec": "libx265", "options": {"x265-params": "keyint=12:log-level=none"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
}


@pytest.fixture(scope="module", params=CODECS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return write_video(folder / "recording.ts", frames=20, **CODECS[request.param])


@pytest.mark.parametrize("shift", [0, 900, -9000, 18 * 3600, 20 * 3600, 20 * 3600 + 120 * 90000])
def test_joined_recordings_follow_one_another(recording: Path, tmp_path: Path, shift: int) -> None:
    """The second part's clock starts where the first one's did, near it, within it, right after it, or much later."""
    second = copy_packets(recording, tmp_path / "second.ts", shift)
    path = tmp_path / "joined.ts"  # the counter of its transport packets jumps
    path.write_bytes(recording.read_bytes() + second.read_bytes())
    expected = decode_everything(path)
    assert [number_of(frame) for frame in expected] == [*range(20), *range(20)]
    assert_random_access(path, expected)
    with VideoReader(path) as reader:
        info = reader.probe()
        assert info.fps == pytest.approx(25, rel=1e-6)
        assert info.duration == pytest.approx(40 / 25)
        np.testing.assert_allclose(np.diff(reader.times()), 1 / 25, atol=2e-3)


@pytest.mark.parametrize("later", [0, 100_000], ids=["from the beginning", "later"])
@pytest.mark.usefixtures("always_seek")
def test_matroska_files_that_were_joined_follow_one_another(tmp_path: Path, later: int) -> None:
    """A seek in such a file leads to its first part alone."""
    path = tmp_path / "joined.mkv"
    with path.open("wb") as file:
        for name, start in (("a.mkv", 0), ("b.mkv", later)):
            file.write(write_video(tmp_path / name, frames=20, times=[start + 40 * n for n in range(20)]).read_bytes())
    expected = decode_everything(path)
    assert [number_of(frame) for frame in expected] == [*range(20), *range(20)]
    assert_random_access(path, expected)
    assert_random_access(path, expected)  # known by now


def test_what_follows_a_matroska_file_and_is_no_frame_does_not_end_its_seeks(tmp_path: Path) -> None:
    path = write_video(tmp_path / "padded.mkv")
    path.write_bytes(path.read_bytes() + bytes(4096))  # as recorders fill up blocks of a disk
    with VideoReader(path) as reader:
        assert (reader.probe().frames, reader._seekable) == (48, True)


@pytest.mark.parametrize("pause", [5, 120, 3600])
def test_a_pause_of_the_recorder_is_not_filmed(tmp_path: Path, pause: int) -> None:
    times = [40 * number + 1000 * pause * (number >= 20) for number in range(40)]
    with VideoReader(write_video(tmp_path / "paused.mkv", frames=40, times=times)) as reader:
        info = reader.probe()
        assert (info.frames, info.fps, info.duration) == (40, 25, 1.6)
        np.testing.assert_allclose(reader.times(), np.arange(40) / 25, atol=1e-9)


def test_times_follow_a_variable_rate(tmp_path: Path) -> None:
    times = [100 * number if number < 10 else 1000 + 33 * (number - 10) for number in range(40)]
    with VideoReader(write_video(tmp_path / "variable.mkv", frames=40, times=times)) as reader:
        np.testing.assert_allclose(reader.times(), np.array(times) / 1000, atol=1e-9)
        assert reader.probe().fps == pytest.approx(40 / 1.997, rel=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_last_frame_of_another_duration_does_not_change_the_rate(tmp_path: Path, suffix: str) -> None:
    """It is 40 ms, that of the others 20, and of 15 frames the mean rate in the header is 46.9."""
    path = write_video(tmp_path / f"short{suffix}", frames=15, times=[20 * number for number in range(15)])
    with VideoReader(path) as reader:
        assert reader.probe().fps == pytest.approx(50, rel=1e-6)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_of_asf_are_those_of_decoding(tmp_path: Path, codec: str) -> None:
    """Frames are reordered, their times are not, of which the last comes twice."""
    times = [40 * number + (0, 9, -5)[number % 3] for number in range(40)]
    path = write_video(tmp_path / "jitter.asf", codec, frames=40, times=times, options={"bf": "2"})
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.times(), np.array(times) / 1000, atol=0.05)
        assert reader.probe().fps == pytest.approx(25, rel=0.03)


@pytest.mark.parametrize(("pairs", "copied"), [(True, ""), (False, ""), (False, ".mp4"), (False, ".mkv")])
@pytest.mark.usefixtures("always_seek")
def test_a_field_a_packet(tmp_path: Path, pairs: bool, copied: str) -> None:
    path = write_fields(tmp_path / "fields.ts", 30, pairs)
    path = copy_packets(path, tmp_path / f"copied{copied}") if copied else path
    with VideoReader(path) as reader:
        info = reader.probe()
        assert (info.frames, info.fps) == (30, pytest.approx(25))
        for indices in ([17], [29, 3], [9, 10, 11], range(30)):
            assert [number_of_field_picture(frame) for frame in frames_of(reader, indices)] == list(indices)


@pytest.mark.parametrize("suffix", [".wmv", ".asf", ".mkv", ".avi", ".ts", ".mpg"])
def test_sound_that_is_longer_than_the_film(tmp_path: Path, suffix: str) -> None:
    codec = "wmv2" if suffix in (".wmv", ".asf") else "mpeg2video"
    silent = write_video(tmp_path / f"silent{suffix}", codec, options={"g": "12"})
    path = add_sound(silent, tmp_path / f"film{suffix}", seconds=9)
    assert_random_access(path, decode_everything(path))
    info = VideoReader(path).probe()
    assert (info.frames, info.fps, info.duration) == (48, 25, 1.92)


@pytest.mark.parametrize("suffix", [".mpg", ".ts"])
def test_sound_that_begins_after_what_ffmpeg_looks_at_first(tmp_path: Path, monkeypatch: Any, suffix: str) -> None:
    """Which are 5 MB; PyAV then knows of no such stream, and ends with an error after the last packet."""
    for option, value in (("probesize", "5000"), ("skip_estimate_duration_from_pts", "1")):
        monkeypatch.setitem(container._OPTIONS, option, value)
    silent = write_video(tmp_path / f"silent{suffix}", "mpeg2video", options={"g": "12"})
    path = tmp_path / f"late{suffix}"
    path.write_bytes(silent.read_bytes() + add_sound(silent, tmp_path / f"film{suffix}", seconds=2).read_bytes())
    with VideoReader(path) as reader:
        assert len(reader._container.streams) == 1
        assert [number_of(frame) for frame in frames_of(reader, range(reader.probe().frames))] == [*range(48)] * 2


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["mpeg2.mpg", "mpeg2.ts", "h264.mpg", "h264.ts"])
def test_a_stream_without_its_beginning(tmp_path: Path, name: str, share: float) -> None:
    """Where program streams give a time a pack, the first frames have none."""
    path = write_video(tmp_path / name, frames=192, **CODECS[Path(name).stem])
    data, unit = path.read_bytes(), 188 if name.endswith("ts") else 2048
    for start in range(int(share * len(data)) // unit * unit, len(data), unit):
        path.write_bytes(data[start:])
        with contextlib.suppress(av.InvalidDataError):  # FFmpeg opens no stream whose first start code is cut in two
            assert_random_access(path, decode_everything(path))
            return
    pytest.fail("no part of the stream can be opened")


def test_a_lost_frame_stays_lost_and_the_others_are_read(tmp_path: Path) -> None:
    """A packet of the transport is missing: the container flags a frame beside the one that is incomplete."""
    path = write_video(tmp_path / "hole.ts", "mpeg2video", options={"g": "1", "b": "9000000", "qmin": "1"})
    expected = decode_everything(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    data = path.read_bytes()
    path.write_bytes(data[: packet.pos + 188] + data[packet.pos + 376 :])
    with VideoReader(path) as reader:
        assert reader.probe().frames == 48
        np.testing.assert_array_equal(frames_of(reader, [19, 21, 47]), expected[[19, 21, 47]])
        with pytest.raises(ClipReadError, match="frame 20 cannot be decoded: 47 of 48 frames are readable"):
            reader.read([20])
