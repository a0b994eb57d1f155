# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

from endofm_monai.data import load_box_datalist

GOOD = [1, 2, 8, 9.5]


def write(folder, box, box_label, **others):
    (folder / "a").mkdir(exist_ok=True)
    for name in ("a/0.png", "a/1.png"):
        (folder / name).touch()
    item = {"image": ["a/0.png", "a/1.png"], "box": box, "box_label": box_label, **others}
    (folder / "list.json").write_text(json.dumps({"training": [item]}))
    return load_box_datalist(folder, folder / "list.json", num_classes=2)


def test_videos_get_a_name(tmp_path):
    (item,) = write(tmp_path, [[GOOD], []], [[2], []])
    assert item["video"] == item["name"] == "a/0-1"
    assert item["box"] == [[GOOD], []]
    (item,) = write(tmp_path, [[], []], [[], []], video="mine")
    assert (item["video"], item["name"]) == ("mine", "a/0-1")


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([[8, 2, 1, 9]], [1], r"frame 1: the box \[8, 2, 1, 9\] is inverted"),
        ([[1, 2, 1, 9]], [1], "has no area"),
        ([[1, 2, float("nan"), 9]], [1], "four finite numbers"),
        ([[1, 2, 3]], [1], "four finite numbers"),
        ([["1", 2, 3, 4]], [1], "four finite numbers"),
        ([GOOD], [3], "the label 3 is no class; expected 1 to 2"),
        ([GOOD], ["polyp"], "the label 'polyp' is no class"),
        ([GOOD], [0], "the label 0 is no class"),
        ([GOOD], [], "has 1 boxes, but 0 labels"),
    ],
)
def test_bad_boxes_are_named(tmp_path, box, label, message):
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path, [[GOOD], box], [[1], label])
    assert "list.json: training[0] (a/0-1), frame 1" in str(caught.value)


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no box_label"):
        write(tmp_path, [[], []], None)
    with pytest.raises(ValueError, match=r"training\[0\] \(a/0-1\): needs a list of boxes"):
        write(tmp_path, [[]], [[]])
