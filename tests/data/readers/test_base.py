# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_videos import number_of, write_video
from PIL import Image

from endofm_monai.data import (
    ClipInfo,
    ClipReader,
    ClipReadError,
    UniformFrames,
    clip_read_errors,
    join_frames,
    load_datalist,
    open_clip,
    split_frames,
)
from endofm_monai.data.readers.base import frame_images
from endofm_monai.transforms import LoadClipd
from tests.support.pictures import write_pages


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "whole.mp4", frames=48)


def test_a_range_is_a_clip_of_its_own(video):
    with open_clip(join_frames(str(video), 10, 29)) as reader:
        info = reader.probe()
        clip = reader.read([19, 0, 7, 0])
    assert (info.frames, info.fps, info.height, info.width) == (20, 25.0, 64, 96)
    assert info.duration == pytest.approx(0.8)
    assert [number_of(frame) for frame in clip.permute(1, 2, 3, 0)] == [29, 10, 17, 10]


def test_transforms_load_a_range(video):
    clip = LoadClipd("image", UniformFrames(3))({"image": join_frames(str(video), 40, 47)})["image"]
    assert [number_of(frame) for frame in clip.permute(1, 2, 3, 0)] == [40, 43, 47]
    assert clip.meta["filename_or_obj"] == f"{video}#frames=40-47"


def test_a_range_of_a_folder_of_frames(tmp_path):
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), number * 20, np.uint8)).save(tmp_path / f"{number}.png")
    with open_clip(f"{tmp_path}#frames=9-11", fps=5) as reader:
        assert reader.probe().fps == 5
        assert torch.equal(reader.read([0, 2])[0, :, 0, 0], torch.tensor([180, 220], dtype=torch.uint8))


@pytest.mark.parametrize(("first", "last"), [(40, 48), (30, 29), (100, 120)])
def test_a_range_outside_the_clip_is_refused(video, first, last):
    with (
        pytest.raises(ClipReadError, match=rf"whole\.mp4#frames={first}-{last}: is no range .* 48 frames"),
        open_clip(f"{video}#frames={first}-{last}") as reader,
    ):
        reader.probe()


def test_the_datalist_checks_the_file_behind_a_range(video, tmp_path):
    datalist = tmp_path / "datalist.json"
    items = [{"image": "whole.mp4#frames=0-9"}, {"image": "whole.mp4#frames=10-19"}]
    datalist.write_text(json.dumps({"training": items}))
    loaded = load_datalist(video.parent, datalist)
    assert [item["image"] for item in loaded] == [f"{video}#frames=0-9", f"{video}#frames=10-19"]
    datalist.write_text(json.dumps({"training": [{"image": "missing.mp4#frames=0-9"}]}))
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4#frames=0-9 does not exist"):
        load_datalist(video.parent, datalist)


class FailingReader(ClipReader):
    """A reader whose library raises ``error`` when it decodes, or already when it probes."""

    def __init__(self, error: Exception, early: bool) -> None:
        super().__init__("clip.xyz")
        self.error, self.early = error, early

    def _probe(self):
        if self.early:
            raise self.error
        return ClipInfo(3, 25.0, 2, 2, 0.12)

    def _decode(self, wanted):
        yield wanted[0], np.zeros((2, 2, 3), np.uint8)
        raise self.error


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("Columns"), "'Columns'"),
        (ValueError("several\n  lines"), "several lines"),
        (FileNotFoundError(2, "No such file or directory", "clip.xyz"), "No such file or directory"),
        (RecursionError(), "RecursionError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_a_library_raises_names_the_clip_in_one_line(error, reason, early):
    with pytest.raises(ClipReadError) as raised:
        FailingReader(error, early).read([0, 1])
    assert str(raised.value) == f"clip.xyz: cannot be read ({reason})"


def test_what_ends_a_process_passes():
    with pytest.raises(KeyboardInterrupt), clip_read_errors("clip.xyz"):
        raise KeyboardInterrupt
    with pytest.raises(ClipReadError, match=r"^clip.xyz: is no clip$"), clip_read_errors("other"):
        raise ClipReadError("clip.xyz: is no clip")


def test_a_name_of_two_lines_is_told_in_one(tmp_path):
    with pytest.raises(ClipReadError) as raised:
        open_clip(tmp_path / "two\nlines.mp4").probe()
    assert str(raised.value).startswith(f"{tmp_path}/two\\nlines.mp4: ")


def test_frames_of_a_range_are_timed_from_its_first(video):
    with open_clip(join_frames(str(video), 10, 29)) as reader:
        np.testing.assert_allclose(reader.times(), np.arange(20) / 25, atol=1e-9)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_frames_are_streamed_by_a_list_or_an_array(video):
    with open_clip(video) as reader:
        for indices in ([3, 5], np.array([3, 5])):
            assert [index for index, _ in reader.stream(indices)] == [3, 5]
        assert list(reader.stream([])) == list(reader.stream(np.array([], int))) == []


def test_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    make(tmp_path, "f10.png", "f2.PNG", "F1.jpg", ".hidden.png", "notes.txt", "below.png/f3.png")
    assert [path.name for path in frame_images(tmp_path)] == ["F1.jpg", "f2.PNG", "f10.png"]


@pytest.mark.parametrize("names", [("1.png", "01.png", "a.png", "A.png"), ("A.png", "a.png", "01.png", "1.png")])
def test_the_order_is_the_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    make(tmp_path, *names)
    listed = {entry.name: entry for entry in os.scandir(tmp_path)}
    monkeypatch.setattr(os, "scandir", lambda _: [listed[name] for name in names])
    assert [path.name for path in frame_images(tmp_path)] == ["01.png", "1.png", "A.png", "a.png"]


def test_a_frame_whose_link_leads_nowhere_is_named(tmp_path: Path) -> None:
    write_pages(tmp_path / "f1.png", [np.zeros((4, 5, 3), np.uint8)])
    shutil.copy(tmp_path / "f1.png", tmp_path / "f3.png")
    (tmp_path / "f2.png").symlink_to(tmp_path / "absent")
    (tmp_path / "f4.png").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "f5.png").symlink_to("f1.png")
    assert [path.name for path in frame_images(tmp_path)] == ["f1.png", "f2.png", "f3.png", "f5.png"]
    with open_clip(tmp_path) as reader, pytest.raises(ClipReadError, match=r"f2\.png: .*No such file or directory"):
        reader.read(range(reader.probe().frames))


def test_names_are_taken_apart_as_they_were_joined(tmp_path: Path) -> None:
    assert split_frames(join_frames("a/b.mp4", 150, 299)) == ("a/b.mp4", (150, 299))
    assert split_frames("a/b.mp4") == ("a/b.mp4", None)
    real = tmp_path / "odd.mp4#frames=1-2"
    real.touch()
    assert split_frames(str(real)) == (str(real), None)
