# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from endofm_monai.data import ClipReadError
from endofm_monai.preparation import SourceVideo
from endofm_monai.preparation.sources import FrameBoxes, read_boxed_video, read_boxed_videos, read_splits


@pytest.fixture
def video(tmp_path):
    """Give a function that reads a frame of 64 x 48 pixels with these boxes."""

    def read(boxes: list[list[float]], size: tuple[int, int] | None = None) -> SourceVideo:
        Image.new("RGB", (64, 48)).save(tmp_path / "1.png")
        (tmp_path / "1.json").write_text(json.dumps(boxes))

        def read_boxes(path: Path) -> FrameBoxes:
            return FrameBoxes(json.loads(path.read_text()), [1] * len(boxes), size)

        return read_boxed_video("v", tmp_path, tmp_path, ".json", read_boxes)

    return read


def test_boxes_are_clamped_to_the_image(video):
    read = video([[-5, 10, 70, 40.5], [70, 0, 80, 10]])
    assert read.frame_labels == {"box": [[[0, 10, 63, 40.5]]], "box_label": [[1]]}
    (note,) = read.notes
    assert "[70, 0, 80, 10] is left out, as nothing of it is in the frame" in note


def test_the_size_of_the_image_counts_and_not_the_stated_one(video):
    read = video([[5, 5, 40, 40]], size=(32, 24))
    assert read.frame_labels["box"] == [[[5, 5, 40, 40]]]
    assert "states a size of (32, 24), but the image has (64, 48)" in read.notes[0]
    assert not video([[5, 5, 40, 40]], size=(64, 48)).notes


@pytest.mark.parametrize("box", [[float("nan"), 1, 5, 5], [1, 1, float("inf"), 5], [9, 1, 5, 5], [1, 9, 5, 5]])
def test_impossible_boxes_do_not_make_a_frame_a_negative(video, box):
    with pytest.raises(ClipReadError, match=r"1\.json: holds no readable boxes .* is not finite or inverted"):
        video([[5, 5, 40, 40], box])


def test_boxes_of_larger_frames_do_not_make_a_video_a_negative(video):
    with pytest.raises(
        ClipReadError, match=r"v: less than half of its boxes, as \[70, 0, 128, 40\], is in its frames of 64"
    ):
        video([[70, 0, 128, 40], [10, 10, 20, 20]])


def test_annotations_may_have_a_suffix_in_capitals(video, tmp_path):
    video([])
    for name in ("1", "2", "._1"):  # macOS keeps the latter on disks of others
        (tmp_path / f"{name}.TXT").write_text("")
    read = read_boxed_video("v", tmp_path, tmp_path, ".txt", lambda path: FrameBoxes([[1, 2, 3, 4]], [1]))
    assert read.frame_labels["box"] == [[[1, 2, 3, 4]]]
    assert read.notes == [f"{tmp_path}/2.TXT: belongs to no image in {tmp_path}"]


def test_images_that_belong_to_no_video_are_told_of(tmp_path):
    for path in (tmp_path / "train" / "Image" / "7" / "1.png", tmp_path / "train" / "Image" / "2.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(path)
    (tmp_path / "train" / "Annotation" / "7").mkdir(parents=True)
    (tmp_path / "train" / "Annotation" / "7" / "1.txt").touch()
    parts = {"train": "training", "val": "validation"}
    videos, problems = read_boxed_videos(
        tmp_path, parts, "Image", "Annotation", ".txt", lambda path: FrameBoxes([], [])
    )
    assert [video.name for video in videos] == ["train/7"]
    loose = "train/Image/2.png: lies in no folder of a video, so that it is left out (1 images do)"
    assert problems == [f"{tmp_path}/{loose}"]


def test_a_broken_image_is_named(video, tmp_path):
    video([])
    (tmp_path / "1.jpg").write_bytes(b"nothing")
    (tmp_path / "1.png").unlink()
    with pytest.raises(ClipReadError, match=r"1\.jpg: is not a readable image"):
        read_boxed_video("v", tmp_path, tmp_path, ".json", lambda path: FrameBoxes([], []))


def test_a_name_in_two_lines_of_a_split(tmp_path):
    (tmp_path / "splits.csv").write_text("name,section\na,training\nb,test\na,test\n")
    with pytest.raises(ValueError, match=r"splits\.csv: has two lines of a$"):
        read_splits(tmp_path / "splits.csv")


def test_a_split_does_not_say_what_the_set_says_itself(tmp_path):
    (tmp_path / "splits.csv").write_text("name,section,image\na,training,other.png\n")
    with pytest.raises(ValueError, match=r"splits\.csv: has the column `image`, which the prepared set has itself"):
        read_splits(tmp_path / "splits.csv")


def test_a_split_of_windows_is_read_or_named(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_bytes("name,section,group\r\nü,training,1\r\n".encode("utf-8-sig"))
    assert read_splits(path) == {"ü": ("training", {"group": "1"})}
    path.write_text("name,section\nü,training\n", encoding="cp1252")
    with pytest.raises(ValueError, match=r"splits\.csv: must be text in UTF-8, but byte 13 is 0xfc; save it as UTF-8"):
        read_splits(path)
