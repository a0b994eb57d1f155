# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.examples import get_path

from endofm_monai.data import ClipReadError, find_clips, open_clip
from endofm_monai.data.readers.paths import frame_images, list_files
from tests.support.pictures import write_pages


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


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


def test_clips_below_a_folder(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("b/case10.mp4", "b/case2.MKV", "b/thumbnail.png", "b/notes.txt"),
        *("frames/1.png", "frames/2.png", "frames/more/video.avi"),
        *("scan.nii.gz", "scan.nii", "cine.dcm", ".hidden.mp4", ".cache/video.mp4", "empty/readme.md"),
    )
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips(tmp_path)]
    expected = ["b/case2.MKV", "b/case10.mp4", "cine.dcm", "frames", "frames/more/video.avi", "scan.nii", "scan.nii.gz"]
    assert found == expected


def test_files_below_a_folder_without_hidden_ones(tmp_path: Path) -> None:
    make(tmp_path, "b/2.png", "b/.thumbs/1.png", ".ipynb_checkpoints/3.png", "a.png", ".4.png")
    assert list_files(tmp_path, (".png",)) == [tmp_path / "a.png", tmp_path / "b" / "2.png"]


@pytest.mark.parametrize("find", [find_clips, lambda folder: list_files(folder, (".mp4",))])
def test_a_folder_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Any
) -> None:
    make(tmp_path, "a/1.mp4", "b/2.mp4")
    scandir = os.scandir

    def locked(folder: str) -> Any:  # also for who may read everything
        if Path(folder) == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="Permission denied: .*b"):
        find(tmp_path)


def test_dicom_files_without_a_suffix(tmp_path: Path) -> None:
    make(tmp_path, "notes", "1.2.3.txt", "1.2.840.10008", "study/frames/1.png")
    for name in ("IM_0001", "study/1.2.840.113619.7", "study/DICOMDIR", "study/.hidden", "report.pdf"):
        shutil.copy(get_path("rgb_color"), tmp_path / name)
    (tmp_path / "study" / "broken").symlink_to(tmp_path / "absent")
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips(tmp_path)]
    assert found == ["IM_0001", "study/1.2.840.113619.7", "study/frames"]


def test_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "a/video.mp4")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert find_clips(tmp_path) == [tmp_path / "a" / "video.mp4"]


def test_recorders_suffixes_and_what_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = ["00000.MTS", "00001.m2ts", "VTS_01_1.VOB", "rec.asf", "rec.mxf", "rec.flv", "rec.OGV", "rec.3gp"]
    make(tmp_path, *videos, "thumb1.jpg", "thumb2.JPG", "index.bup", "LICENCE", ".hidden", "a/b.xyz", "c.d/e.xyz")
    assert {path.name for path in find_clips(tmp_path)} == set(videos)
    assert caplog.messages == [f"{tmp_path}: 6 files are not used: 2 .jpg, 2 .xyz, 1 .bup, 1 without suffix"]
    caplog.clear()
    assert len(list_files(tmp_path, (".jpg",))) == 2
    assert caplog.messages[0].startswith(f"{tmp_path}: 12 files are not used: 2 .xyz, 1 .")
    caplog.clear()
    make(tmp_path / "frames", "1.png", "2.png")
    assert find_clips(tmp_path / "frames") == [tmp_path / "frames"]
    assert not caplog.messages


def test_stacks_are_clips_of_their_own(tmp_path: Path) -> None:
    pages = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(60, 1).reshape(3, 4, 5, 3)
    for name, count in (("a/1.tif", 3), ("a/2.webp", 3), ("b/1.png", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_pages(tmp_path / name, pages[:count])
    assert find_clips(tmp_path) == [tmp_path / "a" / "1.tif", tmp_path / "a" / "2.webp", tmp_path / "b"]
