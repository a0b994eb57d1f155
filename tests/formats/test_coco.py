# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import load_box_datalist
from endofm_monai.formats import write_video
from endofm_monai.formats.coco import datalist_from_coco, write_coco_annotations

CLASSES = ("adenoma", "hyperplastic")


def coco(**changes) -> dict:
    frames = ["b/frame10.png", "b/frame2.png", "a/frame2.png"]
    return {
        "categories": [{"id": 7, "name": "hyperplastic"}, {"id": 3, "name": "adenoma"}],
        "images": [{"id": index, "file_name": name} for index, name in enumerate(frames)],
        "annotations": [
            {"image_id": 0, "category_id": 7, "bbox": [1, 2, 10, 20]},
            {"image_id": 0, "category_id": 3, "bbox": [5.5, 6, 3, 4]},
            {"image_id": 2, "category_id": 3, "bbox": [0, 0, 2, 2]},
        ],
        **changes,
    }


def videos(*images: tuple[int, int, str], **changes) -> dict:
    keys = ("video_id", "frame_index", "file_name")
    listed = [{"id": index, **dict(zip(keys, image, strict=True))} for index, image in enumerate(images)]
    return {**coco(annotations=[]), "videos": [{"id": 1, "name": "a"}], "images": listed, **changes}


def convert(folder: Path, content: object, section: str = "training") -> list[dict]:
    (folder / "train.json").write_text(json.dumps(content))
    return datalist_from_coco({section: folder / "train.json"}, CLASSES, folder / "list.json")[section]


def test_videos_are_folders_with_frames_in_natural_order(tmp_path):
    for name in ("a/frame2.png", "b/frame2.png", "b/frame10.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    convert(tmp_path, coco())
    first, second = load_box_datalist(tmp_path, tmp_path / "list.json", num_classes=2)
    assert (first["video"], first["box"], first["box_label"]) == ("a", [[[0, 0, 2, 2]]], [[1]])
    assert [path.rpartition("/")[2] for path in second["image"]] == ["frame2.png", "frame10.png"]
    assert second["box"] == [[], [[1, 2, 11, 22], [5.5, 6, 8.5, 10]]]
    assert second["box_label"] == [[], [2, 1]]


@pytest.mark.parametrize("attributes", [None, {}, {"rotation": 0.0}, {"rotation": 360}, {"rotation": "to the left"}])
def test_attributes_that_turn_no_box(tmp_path, attributes):
    box = {"image_id": 0, "category_id": 3, "bbox": [1, 2, 0.5, 0.5], "attributes": attributes}
    _, item = convert(tmp_path, coco(annotations=[box]))
    assert item["box"] == [[], [[1, 2, 1.5, 2.5]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            coco(annotations=[{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}]),
            "image 9, which it does not list",
        ),
        (coco(categories=[{"id": 3, "name": "fold"}]), "class None"),
        (
            coco(
                annotations=[
                    {"image_id": 0, "category_id": 3, "bbox": [1, 2, 3, 4], "attributes": {"rotation": turn}}
                    for turn in (0.0, 12.5)
                ]
            ),
            "annotation 1: has a rotated box",
        ),
        (
            coco(categories=[{"id": 3, "name": "fold"}, {"id": 7, "name": "fold"}]),
            "class 'fold'; expected one of adenoma",
        ),
        (
            coco(categories=[{"id": 3, "name": "instrument"}, {"id": 3, "name": "adenoma"}]),
            "two categories of id 3: 'instrument' and 'adenoma'",
        ),
        (
            coco(images=[{"id": 0, "file_name": "a/1.png"}, {"id": 0, "file_name": "a/2.png"}]),
            "two images of id 0: 'a/1.png' and 'a/2.png'",
        ),
        (
            coco(images=[{"id": 0, "file_name": "a/1.png"}, {"id": 2, "file_name": "a/1.png"}]),
            "two images of file_name 'a/1.png': 0 and 2",
        ),
        (videos((1, 0, "a/1.png"), (1, 0, "a/2.png")), r"video and frame \(1, 0\): 'a/1.png' and 'a/2.png'"),
        (videos((1, 0, "a/1.png"), (1, 1, "a/1.png")), "two images of file_name 'a/1.png': 0 and 1"),
        (videos(videos=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "two videos of id 1: 'a' and 'b'"),
        ({"images": []}, "no JSON in COCO's format"),
        ([], "no JSON in COCO's format that can be used: TypeError: "),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        convert(tmp_path, content)
    assert "train.json" in str(caught.value)
    assert not (tmp_path / "list.json").exists()


@pytest.mark.parametrize(("height", "width"), [(20, 20), (16, 24)])  # of the same proportions or not
def test_stills_of_several_sizes_in_one_folder_are_no_video(tmp_path, height, width):
    content = {"categories": [{"id": 1, "name": "adenoma"}], "images": [], "annotations": []}
    for number, (rows, columns) in enumerate([(10, 10), (height, width)]):
        Image.new("RGB", (columns, rows)).save(tmp_path / f"{number}.png")
        about = {"id": number, "file_name": f"{number}.png", "width": columns, "height": rows, "frame_index": 0}
        content["images"].append({**about, "video_id": number})
        content["annotations"].append({"image_id": number, "category_id": 1, "bbox": [2, 2, 4, 4]})
    said = rf"1\.png: has {width}x{height} pixels \(width x height\), but .*0\.png 10x10; those of one size"
    with pytest.raises(ValueError, match=said):
        convert(tmp_path, content)
    content["videos"] = [{"id": number, "name": f"still {number}"} for number in (0, 1)]
    assert [item["box"] for item in convert(tmp_path, content)] == [[[[2, 2, 6, 6]]]] * 2


def test_a_training_with_classes_in_another_order_is_refused(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "0.png")
    convert(tmp_path, coco(annotations=[], images=[{"id": 0, "file_name": "0.png"}]), "test")
    with pytest.raises(ValueError, match="numbers its classes in the order adenoma, hyperplastic, but"):
        load_box_datalist(tmp_path, tmp_path / "list.json", "test", 2, class_names=CLASSES[::-1])


def test_area_is_that_of_the_polygon(tmp_path):
    triangle, box = [2, 2, 12, 2, 2, 10], [1, 1, 4, 3]
    item = {"image": ["a.png"], "video": "a", "outline": [[{"label": 1, "polygon": triangle}]]}
    item |= {"box": [[box]], "box_label": [[1]]}
    write_coco_annotations([item], CLASSES, [(20, 20)], tmp_path / "coco.json")
    written = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    areas = {len(each["segmentation"]): each["area"] for each in written}
    assert areas == {1: 40, 0: 6}  # half of 10 x 8, and 3 x 2


def test_a_name_that_no_file_can_have_is_the_datalists_matter(tmp_path):
    content = coco()
    content["images"][0]["file_name"] = "a" * 5000 + ".png"
    assert "a" * 5000 + ".png" in [image for item in convert(tmp_path, content) for image in item["image"]]


@pytest.mark.parametrize(
    ("file", "indices", "parts"),
    [
        ("a.mp4", [0, 1, 2], {"a.mp4": [0, 1, 2]}),
        ("a.mp4", [0, 10, 20], {"a.mp4#frames=0-0": [0], "a.mp4#frames=10-10": [10], "a.mp4#frames=20-20": [20]}),
        ("a.mp4", [6, 2, 3], {"a.mp4#frames=2-3": [2, 3], "a.mp4#frames=6-6": [6]}),
        ("a.mp4", [1, 2, 3], {"a.mp4#frames=1-3": [1, 2, 3]}),
        ("a.mp4#frames=100-107", [0, 1], {"a.mp4#frames=100-107": [0, 1]}),
        ("a.mp4#frames=100-107", [1, 4], {"a.mp4#frames=101-101": [1], "a.mp4#frames=104-104": [4]}),
    ],
)
def test_a_box_is_of_the_frame_of_the_file_that_it_names(tmp_path, caplog, file, indices, parts):
    content = videos(*((1, index, f"{index}.png") for index in indices))
    content["videos"] = [{"id": 1, "name": "a", "file_name": file}]
    content["annotations"] = [
        {"image_id": place, "category_id": 3, "bbox": [index, 0, 1, 1]} for place, index in enumerate(indices)
    ]
    items = convert(tmp_path, content)
    assert {item["image"]: [box[0] for (box,) in item["box"]] for item in items} == parts
    assert {item["video"] for item in items} == {"a"}
    gaps = max(indices) - min(indices) + 1 - len(indices)
    message = f"{tmp_path}/train.json: {gaps} frames between those of 'a' are not listed and are left out."
    assert caplog.messages == [message] * (gaps > 0)


def test_frames_that_the_file_does_not_have_are_named(tmp_path):
    write_video(tmp_path / "a.mp4", [np.zeros((32, 48, 3), np.uint8)] * 3, fps=30)
    content = videos(*((1, index, f"{index}.png") for index in (1, 2, 3)))
    content["videos"] = [{"id": 1, "name": "a", "file_name": "a.mp4"}]
    content["images"] = [{**image, "width": 48, "height": 32} for image in content["images"]]
    with pytest.raises(ValueError, match=r"a\.mp4#frames=1-3: is no range of frames of the clip, which has 3 frames"):
        convert(tmp_path, content)
