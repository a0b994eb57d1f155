# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
from bundles import write_noise
from PIL import Image

from endofm_monai.data import load_box_datalist, load_labeled_clips
from endofm_monai.formats.items import annotations_from_item, items_from_annotations, tagged_clips

CLASSES = ("adenoma", "hyperplastic")


def test_the_box_datalist_is_what_detection_trains_on(video_task, tmp_path):
    (item,) = items_from_annotations(video_task, CLASSES)
    write_noise(tmp_path / "a.mp4", 0, frames=8)
    (tmp_path / "list.json").write_text(json.dumps({"test": [item]}))
    (read,) = load_box_datalist(tmp_path, tmp_path / "list.json", "test", num_classes=2)
    assert [len(boxes) for boxes in read["box"]] == [1, 1, 1, 1, 0, 0, 1, 1]
    assert read["box"][1] == [[12.0, 10.0, 22.0, 32.0]]
    assert read["box_label"][6] == [1]
    assert read["box_info"][1] == [{"track": 0, "keyframe": False}]
    assert read["outline"][1] == [
        {"label": 2, "polygon": [5.0, 5.0, 15.0, 5.0, 15.0, 20.0], "track": 1, "source": "auto"}
    ]
    assert read["outline"][2] == []


def test_a_tag_counts_until_the_next_one(video_task, tmp_path):
    clips = tagged_clips(items_from_annotations(video_task, CLASSES))
    assert [(clip["image"], clip["label"]) for clip in clips] == [
        ("a.mp4#frames=0-2", "normal"),
        ("a.mp4#frames=3-7", "abnormal"),
    ]
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.json").write_text(json.dumps({"training": clips}))
    read = load_labeled_clips(tmp_path, ("normal", "abnormal"), tmp_path / "list.json")
    assert [(clip["label"], clip["group"]) for clip in read] == [(0, "a"), (1, "a")]


def test_parts_of_a_video_keep_their_place(video_task):
    (item,) = items_from_annotations(video_task, CLASSES, image="videos/a.mp4")
    part = {**item, "image": "videos/a.mp4#frames=100-107"}
    task = annotations_from_item(part, CLASSES, 96, 64)
    assert (task.start, task.frames, task.source) == (100, 8, "videos/a.mp4")
    assert items_from_annotations(task, CLASSES)[0]["image"] == "videos/a.mp4#frames=100-107"
    assert tagged_clips([part])[1]["image"] == "videos/a.mp4#frames=103-107"


def test_a_tag_counts_in_later_parts_of_its_video_in_whatever_order_they_come():
    def part(image, video, *labels):
        return {"image": image, "video": video, "tag": [[{"label": label}] if label else [] for label in labels]}

    first, last = part("a.mp4#frames=0-2", "a", "", "low", ""), part("a.mp4#frames=5-6", "a", "", "high")
    clips = tagged_clips([last, part("b.mp4", "b", "", "mid"), first])
    assert [(clip["image"], clip["label"]) for clip in clips] == [
        ("a.mp4#frames=1-2", "low"),
        ("a.mp4#frames=5-5", "low"),
        ("a.mp4#frames=6-6", "high"),
        ("b.mp4#frames=1-1", "mid"),
    ]


def test_images_of_a_folder_are_a_video(tmp_path):
    names = ["x/1.png", "y/1.png", "x/2.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    item = {"image": names, "video": "all", "box": [[], [[1, 2, 3, 4]], [[0, 0, 5, 5]]], "box_label": [[], [1], [2]]}
    first, second = items_from_annotations(annotations_from_item(item, CLASSES, 8, 8), CLASSES, image=str(tmp_path))
    assert first["image"] == [f"{tmp_path}/x/1.png", f"{tmp_path}/x/2.png"]
    assert (first["box"], first["box_label"]) == ([[], [[0, 0, 5, 5]]], [[], [2]])
    assert second["box"] == [[[1, 2, 3, 4]]]


def test_bad_items_are_named(video_task):
    with pytest.raises(ValueError, match="a: has a 'adenoma'; expected one of polyp"):
        items_from_annotations(video_task, ("polyp",))
    (item,) = items_from_annotations(video_task, CLASSES)
    item["box_label"][1] = [2]
    with pytest.raises(ValueError, match="a: track 0 has two shapes in frame 1, or two classes"):
        annotations_from_item(item, CLASSES, 96, 64)
    item["box_label"][1] = [0]
    with pytest.raises(ValueError, match="a: frame 1 shows class 0; expected 1 to 2"):
        annotations_from_item(item, CLASSES, 96, 64)
    item["tag"][0] *= 2
    item["image"] = "a.mp4#frames=5-12"
    with pytest.raises(ValueError, match="a: frame 5 has several tags"):  # as CVAT counts
        tagged_clips([item])
