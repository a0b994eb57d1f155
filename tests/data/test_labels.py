# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
import torch
from bundles import write_noise
from PIL import Image

from endofm_monai.data import class_weights, load_box_datalist, load_labeled_clips, load_mask_datalist

GOOD = [1, 2, 8, 9.5]


def write(folder, box, box_label, **others):
    (folder / "a").mkdir(exist_ok=True)
    for name in ("a/0.png", "a/1.png"):
        Image.new("RGB", (16, 12)).save(folder / name)
    item = {"image": ["a/0.png", "a/1.png"], "box": box, "box_label": box_label, **others}
    (folder / "list.json").write_text(json.dumps({"validation": [item]}))
    return load_box_datalist(folder, folder / "list.json", "validation", num_classes=2)


def test_boxes_of_frames_of_another_size_are_told_before_a_training(tmp_path):
    with pytest.raises(
        ValueError, match=r"a/0-1: less than half of its boxes, as \[16, 2, 30, 9\], is in its frames of 16x12 pixels"
    ):
        write(tmp_path, [[[16, 2, 30, 9]], []], [[1], []])
    twice = [[12, 8, 20, 16]]  # of frames of 32x24, of which the frame still shows a corner
    with pytest.raises(ValueError, match="less than half"):
        write(tmp_path, [twice, []], [[1], []])
    for leaving in ([-9, -9, 1, 2], [12, 2, 19, 8]):
        write(tmp_path, [[leaving], []], [[1], []])


def test_videos_get_a_name(tmp_path):
    (item,) = write(tmp_path, [[GOOD], []], [[2], []])
    assert item["video"] == item["name"] == "a/0-1"
    assert item["box"] == [[GOOD], []]
    (item,) = write(tmp_path, [[], []], [[], []], video="mine")
    assert (item["video"], item["name"]) == ("mine", "a/0-1")


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([[0.1, 0.2, 0.4, 1]], [1], r"frame 1: the box \[0.1, 0.2, 0.4, 1\] is of shares of the frame"),
        ([[8, 2, 1, 9]], [1], r"frame 1: the box \[8, 2, 1, 9\] is inverted"),
        ([[1, 2, 1, 9]], [1], "has no area"),
        ([[1, 2, float("nan"), 9]], [1], "four finite numbers"),
        ([[1, 2, 3]], [1], "four finite numbers"),
        ([["1", 2, 3, 4]], [1], "four finite numbers"),
        ([[True, 2, 3, 4]], [1], "four finite numbers"),
        ([GOOD], [3], "the label 3 is no class; expected 1 to 2"),
        ([GOOD], ["polyp"], "the label 'polyp' is no class"),
        ([GOOD], [0], "the label 0 is no class"),
        ([GOOD], [], "has 1 boxes, but 0 labels"),
    ],
)
def test_bad_boxes_are_named(tmp_path, box, label, message):
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path, [[GOOD], box], [[1], label])
    assert "list.json: validation[0] (a/0-1), frame 1" in str(caught.value)


def test_a_pixel_in_the_corner_is_a_box(tmp_path):
    assert write(tmp_path, [[[0, 0, 1, 1]], []], [[1], []])[0]["box"][0] == [[0, 0, 1, 1]]


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no box_label"):
        write(tmp_path, [[], []], None)
    with pytest.raises(ValueError, match=r"validation\[0\] \(a/0-1\): needs a list of boxes"):
        write(tmp_path, [[]], [[]])


@pytest.mark.parametrize(("labels", "missing"), [([], "1, 2"), ([1], "2"), ([2], "1"), ([2, 1], None)])
def test_class_without_a_box_in_training(tmp_path, labels, missing):
    write(tmp_path, [[GOOD] * len(labels), []], [labels, []])
    (tmp_path / "list.json").write_text((tmp_path / "list.json").read_text().replace("validation", "training"))
    if missing is None:
        assert len(load_box_datalist(tmp_path, tmp_path / "list.json", num_classes=2)) == 1
        return
    with pytest.raises(ValueError, match=f"list.json: no box of `training` is of the class {missing}, which"):
        load_box_datalist(tmp_path, tmp_path / "list.json", num_classes=2)


def write_masks(folder, *values):
    """Frames with masks of one gray value each."""
    for name in ("f", "m"):
        (folder / name).mkdir()
        for frame, value in enumerate(values):
            Image.new("L", (48, 40), value).save(folder / name / f"{frame}.png")


def test_masks_that_show_nothing_train_nothing(tmp_path, caplog):
    write_masks(tmp_path, 0, 0, 1, 2)
    parts = [{"image": [f"f/{n}.png" for n in part], "mask": [f"m/{n}.png" for n in part]} for part in ((0, 1), (3,))]
    shown = {"image": ["f/2.png"], "mask": ["m/2.png"]}
    lists = {"training": parts[:1], "validation": parts[:1], "test": parts, "other": [*parts, shown], "turned": [shown]}
    path = tmp_path / "list.json"
    path.write_text(json.dumps(lists))
    with pytest.raises(ValueError, match="list.json: training: no mask shows anything but background"):
        load_mask_datalist(tmp_path, path)
    assert len(load_mask_datalist(tmp_path, path, "validation")) == 1
    assert "list.json: validation: no mask shows anything but background" in caplog.text
    with pytest.raises(ValueError, match=r"m/3\.png: a mask must hold .* but holds 2"):  # and no other can be judged
        load_mask_datalist(tmp_path, path, "test")
    assert len(load_mask_datalist(tmp_path, path, "other")) == 3  # a broken one is counted when it is read
    assert "m/2.png: its corners are foreground, which is white or 1; is it inverted?" in caplog.text
    Image.new("L", (40, 48), 1).save(tmp_path / "m/2.png")
    with pytest.raises(ValueError, match=r"m/2\.png: has 48x40 values, its frame 40x48 pixels"):
        load_mask_datalist(tmp_path, path, "turned")
    with pytest.raises(ValueError, match="`num_classes` is 3, but masks have 2 classes"):
        load_mask_datalist(tmp_path, path, num_classes=3)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (["f/0.png", "f/1.png"], ["m/0.png", "m/1.png"], None),
        (["f/0.png", "f/1.png"], "m", None),
        ("f", "m", None),
        ("v.mp4", ["m/0.png"], None),  # its frames are counted when it is read
        (["f/0.png", "f/1.png"], ["m/0.png"], "has 2 frames, but 1 masks"),
        ("f", ["m/0.png"], "has 2 frames, but 1 masks"),
        (["f/0.png", "f/1.png"], "m/0.png", "has 2 frames, but 1 masks"),
        (["f/0.png", "f/1.png"], ["m/0.png", None], "found None"),
        ("v.mp4", 7, "found 7"),
        (["f/0.png", "f/1.png"], [], "has 2 frames, but 0 masks"),
        ("v.mp4", {"a": 1}, r"found \{'a': 1\}"),
    ],
)
def test_every_frame_needs_a_mask(tmp_path, image, mask, message):
    write_masks(tmp_path, 255, 255)
    write_noise(tmp_path / "v.mp4", 0, frames=1)
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": image, "mask": mask}]}))
    if message is None:
        assert len(load_mask_datalist(tmp_path, tmp_path / "list.json")) == 1
        return
    with pytest.raises(ValueError, match=rf"list.json: training\[0\] \(.+\): .*{message}"):
        load_mask_datalist(tmp_path, tmp_path / "list.json")


@pytest.mark.parametrize("listed", [False, True])
def test_masks_of_other_frames_are_named_before_a_training_whatever_other_videos_have(tmp_path, listed):
    items = []
    for video, number in (("a", 1), ("b", 3)):
        for name in (f"{video}/f0.png", f"{video}/f1.png", f"{video}_m/f0.png", f"{video}_m/f{number}.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("L", (16, 12), 255).save(tmp_path / name)
        items.append({"image": [f"{video}/f0.png", f"{video}/f1.png"] if listed else video, "mask": f"{video}_m"})
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    with pytest.raises(ValueError, match=r"b_m/f3\.png: is where the mask of .*b/f1\.png is expected"):
        load_mask_datalist(tmp_path, tmp_path / "list.json")


NAMES = ["normal", "abnormal"]


def write_classes(folder, **sections):
    """A datalist, and empty files for what it lists."""
    for items in sections.values():
        for item in items:
            for image in item["image"] if isinstance(item["image"], list) else [item["image"]]:
                (folder / image).parent.mkdir(parents=True, exist_ok=True)
                (folder / image).touch()
    (folder / "datalist.json").write_text(json.dumps(sections))
    return folder / "datalist.json"


def test_items_are_named_and_labeled(tmp_path):
    datalist = write_classes(
        tmp_path,
        training=[
            {"image": "a/1.mp4", "label": 0},
            {"image": "a/2.mp4", "label": "abnormal", "group": "patient 7"},
            {"image": ["b/1.png", "b/2.png"], "label": 1, "video": "clip b"},
        ],
    )
    items = load_labeled_clips(tmp_path, NAMES, datalist)
    assert [(item["label"], item["video"], item["group"]) for item in items] == [
        (0, "a/1", "a/1"),
        (1, "a/2", "patient 7"),
        (1, "clip b", "clip b"),
    ]
    assert items[0]["image"] == str(tmp_path / "a/1.mp4")


def test_a_label_a_frame_gives_an_item_a_frame(tmp_path):
    datalist = write_classes(tmp_path, test=[{"image": ["b/1.png", "b/2.png"], "label": [0, 1]}])
    items = load_labeled_clips(tmp_path, NAMES, datalist, "test")
    assert [(item["label"], item["video"]) for item in items] == [(0, "b/1"), (1, "b/2")]
    assert items[0]["group"] == items[1]["group"]
    parts = [{"image": [f"b/{n}.png"], "label": [n - 1], "video": "b"} for n in (1, 2)]  # between frames left out
    items = load_labeled_clips(tmp_path, NAMES, write_classes(tmp_path, test=parts), "test")
    assert [item["group"] for item in items] == ["b", "b"]
    frames = [{"image": [f"b/{n}.png"], "label": [n - 1], "group": "patient", "weight": 3} for n in (1, 2)]
    items = load_labeled_clips(tmp_path, NAMES, write_classes(tmp_path, test=frames), "test")
    assert [(item["group"], item["weight"]) for item in items] == [("patient", 3)] * 2
    datalist = write_classes(tmp_path, test=[{"image": ["b/1.png", "b/2.png"], "label": [0]}])
    with pytest.raises(ValueError, match=r"b/1\.png and following: 2 frames have 1 labels"):
        load_labeled_clips(tmp_path, NAMES, datalist, "test")


def test_folders_of_classes(tmp_path):
    for name in ("training/normal/1.png", "training/abnormal/2.png", "training/abnormal/x/3.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    items = load_labeled_clips(tmp_path, NAMES)
    assert [(item["video"], item["label"]) for item in items] == [
        ("training/normal/1", 0),
        ("training/abnormal/2", 1),
        ("training/abnormal/x/3", 1),
    ]
    with pytest.raises(FileNotFoundError, match="test: is no folder"):
        load_labeled_clips(tmp_path, NAMES, section="test")
    (tmp_path / "training" / "other").mkdir()
    with pytest.raises(ValueError, match=r"training/other: is none of `class_names`"):
        load_labeled_clips(tmp_path, NAMES)


def test_several_labels(tmp_path):
    datalist = write_classes(
        tmp_path, training=[{"image": "1.mp4", "label": [1, 1]}, {"image": "2.mp4", "label": [0, 1]}]
    )
    items = load_labeled_clips(tmp_path, NAMES, datalist, multi_label=True)
    assert torch.stack([item["label"] for item in items]).tolist() == [[1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("label", "multi_label", "message"),
    [
        (2, False, r"test: 1: `label` must be from 0 to 1 .*found 2"),
        (-1, False, "found -1"),
        ("polyp", False, "found 'polyp'"),
        (0.5, False, r"found 0\.5"),
        ([0, 1, 1], True, "must be a list of 2 times 0 or 1"),
        (1, True, "must be a list of 2 times 0 or 1"),
    ],
)
def test_wrong_labels(tmp_path, label, multi_label, message):
    datalist = write_classes(tmp_path, test=[{"image": "1.mp4", "label": label}])
    with pytest.raises(ValueError, match=message):
        load_labeled_clips(tmp_path, NAMES, datalist, "test", multi_label)


@pytest.mark.parametrize(
    ("labels", "multi_label", "found"),
    [
        ((0, 1), False, "normal and abnormal"),
        (([0, 1], [1, 1]), True, r"\[0, 1\] and \[1, 1\]"),
        ((1, "abnormal"), False, None),
        (([0, 1], [0, 1]), True, None),
    ],
)
def test_one_video_has_one_label(tmp_path, labels, multi_label, found):
    items = [{"image": f"{place}.mp4", "label": label, "video": "v"} for place, label in enumerate(labels)]
    datalist = write_classes(tmp_path, test=items)
    if found is None:
        assert len(load_labeled_clips(tmp_path, NAMES, datalist, "test", multi_label)) == 2
        return
    with pytest.raises(ValueError, match=rf"datalist\.json: test: items of the `video` v have the labels {found}, but"):
        load_labeled_clips(tmp_path, NAMES, datalist, "test", multi_label)


def test_class_that_training_lacks(tmp_path):
    datalist = write_classes(tmp_path, training=[{"image": "1.mp4", "label": 0}], test=[{"image": "1.mp4", "label": 0}])
    with pytest.raises(ValueError, match="no item of `training` is of the class abnormal"):
        load_labeled_clips(tmp_path, NAMES, datalist)
    assert len(load_labeled_clips(tmp_path, NAMES, datalist, "test")) == 1


@pytest.mark.parametrize(
    ("labels", "is_right"),
    [
        ({"1": "b", "0": "a"}, True),
        ({"0": "b", "1": "a"}, False),
        ({"0": "a", "1": "other", "2": "b"}, False),
        ({"1": "a"}, True),
        ({"a": 1, "b": 0}, True),
        (7, True),
    ],
)
def test_numbered_classes_are_named_in_their_order(tmp_path, labels, is_right):
    datalist = write_classes(tmp_path, training=[{"image": f"{n}.mp4", "label": n} for n in (0, 1)])
    boxed = {"box": [[GOOD], [GOOD]], "box_label": [[1], [2]]}
    write(tmp_path, **boxed)
    for path in (datalist, tmp_path / "list.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels}))
    for load in (
        lambda: load_labeled_clips(tmp_path, ["a", "b"], datalist),
        lambda: load_box_datalist(tmp_path, tmp_path / "list.json", "validation", 2, ["a", "b"]),
    ):
        if is_right:
            assert load()
            continue
        with pytest.raises(ValueError, match="in the order (b, a|a, other, b), but `class_names` is a, b"):
            load()


def test_one_class_is_told_apart_from_nothing(tmp_path):
    datalist = write_classes(tmp_path, training=[{"image": "1.mp4", "label": "polyp"}])
    with pytest.raises(ValueError, match="with one class there is nothing to tell apart"):
        load_labeled_clips(tmp_path, ["polyp"], datalist)


def test_class_weights():
    items = [{"label": 0}, {"label": 0}, {"label": 0}, {"label": 1}]
    assert class_weights("balanced", items, NAMES) == pytest.approx([4 / 6, 2.0])
    items[3]["weight"] = 3  # which so is seen as often as the others
    assert class_weights("balanced", items, NAMES) == [1, 1]
    assert class_weights([1, 2], items, NAMES) == [1, 2]
    assert class_weights(None, items, NAMES) is None
    with pytest.raises(ValueError, match='must be "balanced" or 2 numbers'):
        class_weights([1, 2, 3], items, NAMES)


def test_balanced_weights_of_several_labels():
    labels = [[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1]]
    items = [{"label": torch.tensor(label, dtype=torch.float32)} for label in labels]
    assert class_weights("balanced", items, ["half", "all", "one"]) == [1, 1, 3]
