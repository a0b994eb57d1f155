# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from endofm_monai.data import ClipReadError, join_frames, open_clip, split_frames
from endofm_monai.data.readers.paths import frame_images
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


def test_names_are_taken_apart_as_they_were_joined(tmp_path: Path) -> None:
    assert split_frames(join_frames("a/b.mp4", 150, 299)) == ("a/b.mp4", (150, 299))
    assert split_frames("a/b.mp4") == ("a/b.mp4", None)
    real = tmp_path / "odd.mp4#frames=1-2"
    real.touch()
    assert split_frames(str(real)) == (str(real), None)
