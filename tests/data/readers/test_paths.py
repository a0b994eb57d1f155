# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from pathlib import Path

from pydicom.examples import get_path

from endofm_monai.data import find_clips
from endofm_monai.data.readers.paths import frame_images


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    make(tmp_path, "f10.png", "f2.PNG", "F1.jpg", ".hidden.png", "notes.txt", "below.png/f3.png")
    assert [path.name for path in frame_images(tmp_path)] == ["F1.jpg", "f2.PNG", "f10.png"]


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
