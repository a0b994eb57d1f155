# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endofm_monai.apps.cvat.__main__ import from_cvat, to_coco, to_cvat
from endofm_monai.data import UniformFrames, load_datalist, load_mask_datalist, read_mask
from endofm_monai.formats.coco import datalist_from_coco
from endofm_monai.transforms import LoadClipd, LoadMasksd

MASKS = np.zeros((3, 20, 30), np.uint8)
MASKS[0, 2:9, 3:12] = 255
MASKS[0, 4, 5] = 0  # a hole
MASKS[0, 15:18, 20:29] = 255
MASKS[2, 5, 5] = 255
ITEM = {"image": [f"frames/a/{i}.png" for i in range(3)], "mask": [f"masks/{i}.png" for i in range(3)], "video": "a"}


def write_list(dataset: Path, *items: dict[str, Any], **more: Any) -> None:
    (dataset / "list.json").write_text(json.dumps({"training": items, **more}))


def export(dataset: Path, **options: Any) -> Path:
    """The folder with the XML that is made of the list."""
    to_cvat(str(dataset), str(dataset / "list.json"), str(dataset / "xml"), **options)
    return dataset / "xml"


def bring_home(dataset: Path, *files: Path, **options: Any) -> Path:
    """The datalist that is made of XML."""
    from_cvat(*map(str, files), dataset_dir=str(dataset), output=str(dataset / "new.json"), **options)
    return dataset / "new.json"


@pytest.fixture
def dataset(tmp_path):
    """Three frames with masks, and a datalist of them."""
    for folder in ("frames/a", "masks"):
        (tmp_path / folder).mkdir(parents=True)
    for index, mask in enumerate(MASKS):
        Image.new("RGB", (30, 20)).save(tmp_path / f"frames/a/{index}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{index}.png")
    write_list(tmp_path, ITEM)
    return tmp_path


def test_masks_come_back_from_cvat_pixel_by_pixel(dataset):
    new = bring_home(dataset, export(dataset) / "a.xml", masks="corrected")
    (item,) = load_datalist(dataset, new, label_key="mask")
    masks = LoadMasksd("mask")(LoadClipd("image", UniformFrames(3))(item))["label"]
    np.testing.assert_array_equal(masks[0].numpy() * 255, MASKS)
    assert [len(frame) for frame in item["outline"]] == [2, 0, 1]
    assert item["mask"][0].endswith("corrected/a/0.png")


def test_masks_of_a_datalist_become_annotations_of_coco(dataset):
    to_coco(str(dataset), str(dataset / "list.json"), str(dataset / "coco.json"))
    coco = json.loads((dataset / "coco.json").read_text())
    assert len(coco["images"]) == 3
    areas = {frame: sum(a["area"] for a in coco["annotations"] if a["image_id"] == frame + 1) for frame in range(3)}
    assert areas == {frame: np.count_nonzero(MASKS[frame]) for frame in range(3)}


@pytest.mark.parametrize("command", [to_cvat, to_coco])
def test_masks_and_boxes_of_another_size_are_not_put_elsewhere(dataset, command):
    for index, mask in enumerate(MASKS):
        Image.fromarray(mask[::2, ::2]).save(dataset / f"masks/{index}.png")
    with pytest.raises(ValueError, match=r"masks/0\.png: has 15x10 pixels, but its frame 30x20"):
        command(str(dataset), str(dataset / "list.json"), str(dataset / "out"))
    item = {"image": "frames/a", "video": "a", "box": [[[31, 2, 59, 19]], [], []], "box_label": [[1], [], []]}
    write_list(dataset, item)
    with pytest.raises(ValueError, match=r"boxes, as \[31, 2, 59, 19\], is in its frames of 30x20"):
        command(str(dataset), str(dataset / "list.json"), str(dataset / "out"))


@pytest.mark.parametrize(("image", "first"), [("frames/a", 0), ("frames/a#frames=1-2", 1)])
def test_frames_of_a_folder_have_the_names_of_their_files_in_coco(dataset, image, first):
    frames = [f"frames/a/{i}.png" for i in range(first, 3)]
    item = {"image": image, "video": "a", "box": [[[1, 2, 9, 7]] for _ in frames], "box_label": [[1] for _ in frames]}
    write_list(dataset, item)
    to_coco(str(dataset), str(dataset / "list.json"), str(dataset / "coco.json"))
    assert [each["file_name"] for each in json.loads((dataset / "coco.json").read_text())["images"]] == frames
    (read,) = datalist_from_coco({"training": dataset / "coco.json"}, ["polyp"], dataset / "new.json")["training"]
    assert (read["image"], read["box"]) == (frames, item["box"])


def test_coco_by_command(dataset):
    outline = {"label": 1, "polygon": [1, 1, 5, 1, 5, 4]}
    item = {**ITEM, "box": [[[1, 2, 9, 7.5]], [], []], "box_label": [[2], [], []], "outline": [[], [outline], []]}
    write_list(dataset, item)
    to_coco(str(dataset), str(dataset / "list.json"), str(dataset / "coco.json"), class_names=("adenoma", "other"))
    coco = json.loads((dataset / "coco.json").read_text())
    assert [(a["image_id"], a["category_id"], a["bbox"]) for a in coco["annotations"]] == [
        (1, 2, [1, 2, 8, 5.5]),
        (2, 1, [1, 1, 4, 3]),
    ]
    assert coco["images"][1]["file_name"] == "frames/a/1.png"
    assert (coco["images"][0]["height"], coco["images"][0]["width"]) == (20, 30)
    files, names = {"training": dataset / "coco.json"}, ("adenoma", "other")
    (read,) = datalist_from_coco(files, names, dataset / "new.json", outlines=True)["training"]
    assert (read["box"], read["box_label"], read["outline"]) == (item["box"], item["box_label"], item["outline"])
    (plain,) = datalist_from_coco(files, names, dataset / "new.json")["training"]
    assert plain["box"][1] == [[1, 1, 5, 4]]  # by default every annotation is a box


def test_names_from_a_file_do_not_lead_out_of_the_folder(dataset):
    text = (export(dataset) / "a.xml").read_text()
    (dataset / "bad.xml").write_text(text.replace("<name>a<", "<name>../../../a<"))
    with pytest.raises(ValueError, match="would be written outside of their folder"):
        bring_home(dataset, dataset / "bad.xml")
    (dataset / "bad.xml").write_text(text.replace("frames/a/0.png", "../../0.png"))
    with pytest.raises((ValueError, FileNotFoundError), match="does not exist|lies outside"):
        bring_home(dataset, dataset / "bad.xml")
    write_list(dataset, {**ITEM, "video": "../a"})
    with pytest.raises(ValueError, match="would be written outside of"):
        export(dataset)


def test_the_name_of_a_task_does_not_lead_to_the_images(dataset):
    text = (export(dataset) / "a.xml").read_text()
    (dataset / "bad.xml").write_text(text.replace("<name>a<", "<name>../frames/a<"))
    with pytest.raises(ValueError, match=r"bad\.xml: task: results of '../frames/a' would be written outside"):
        bring_home(dataset, dataset / "bad.xml")
    assert {Image.open(path).mode for path in (dataset / "frames/a").iterdir()} == {"RGB"}


def test_images_beside_folders_of_images_are_named_by_their_task(dataset):
    shutil.copy(dataset / "frames/a/2.png", dataset / "2.png")
    text = (export(dataset) / "a.xml").read_text().replace("frames/a/2.png", "2.png")
    (dataset / "task.xml").write_text(text.replace("<name>a<", "<name>case 3<"))
    items = json.loads(bring_home(dataset, dataset / "task.xml", masks="new").read_text())["training"]
    assert {item["video"]: item["mask"] for item in items} == {
        "case 3": ["new/case 3/2.png"],
        "frames/a": ["new/frames/a/0.png", "new/frames/a/1.png"],
    }


def test_tasks_of_one_name_are_refused(dataset):
    file = export(dataset) / "a.xml"
    with pytest.raises(ValueError, match="a.xml: is another task named 'a'"):
        bring_home(dataset, file, file)


def test_tasks_of_parts_of_a_video_come_home_together(dataset):
    outline = {"label": 1, "polygon": [1, 1, 9, 1, 9, 9]}
    parts = [{"image": f"frames/a#frames={part}", "video": "a", "outline": [[outline]]} for part in ("0-0", "2-2")]
    write_list(dataset, *parts)
    files = sorted((export(dataset) / "frames").iterdir())
    items = load_mask_datalist(dataset, bring_home(dataset, *files, image="frames/a", masks="new"))
    assert [Path(item["image"]).name for item in items] == ["a#frames=0-0", "a#frames=2-2"]
    assert [item["mask"] for item in items] == [[f"{dataset}/new/a_{part}/000000.png"] for part in ("0-0", "2-2")]
    shutil.copytree(dataset / "frames", dataset / "others" / "frames")
    other = dataset / "other.xml"
    other.write_text(files[1].read_text().replace("<source>frames", "<source>others/frames"))
    with pytest.raises(ValueError, match="other.xml: is another task named 'a', and not another part of its video"):
        bring_home(dataset, files[0], other)


def test_jobs_that_overlap_are_refused(dataset):
    parts = [{"image": f"frames/a#frames={part}", "box": [[]] * 2, "box_label": [[]] * 2} for part in ("0-1", "1-2")]
    write_list(dataset, *parts)
    files = sorted((export(dataset) / "frames").iterdir())
    with pytest.raises(ValueError, match=r"a_1-2.xml: has frames/a#frames=1-1, as .*a_0-1.xml has"):
        bring_home(dataset, *files, image="frames/a")


def test_what_trainings_do_not_take_as_it_was_meant_is_told(dataset, capsys):
    polygons = [[{"label": label, "polygon": [1, 1, 9, 1, 9, 9]}] for label in (1, 2)]
    item = {"image": ITEM["image"], "video": "a", "outline": [*polygons, []]}
    item |= {"box": [[[1, 1, 9, 9]], [], [[1, 1, 9, 9]]], "box_label": [[1], [], [1]]}
    classes = {"class_names": ("polyp", "tool")}
    write_list(dataset, item)
    bring_home(dataset, export(dataset, **classes) / "a.xml", **classes)
    said = capsys.readouterr().out
    assert "a: outlines are of the classes polyp, tool, but masks have one foreground" in said
    assert "a: 2 frames, the first 1, have boxes or outlines alone" in said
    item |= {"box": [[], [], [[9, 9, 9, 9]]], "box_label": [[], [], [1]]}
    write_list(dataset, item)
    file = export(dataset, **classes) / "a.xml"
    with pytest.raises(ValueError, match=r"a\.xml: frame 2: the box \[9\.0, .* has no area"):
        bring_home(dataset, file, **classes)


def test_tags_of_an_earlier_run_are_not_left_beside_a_datalist_without(dataset):
    for tags, is_there in (([{"label": "normal"}], True), ([], False)):
        write_list(dataset, {"image": ["frames/a/0.png"], "tag": [tags], "video": "a"})
        bring_home(dataset, export(dataset) / "a.xml")
        assert (dataset / "new_tags.json").exists() == is_there


def test_what_cannot_be_used_leaves_the_former_datalist_as_it_was(dataset):
    file, output = export(dataset) / "a.xml", dataset / "new.json"
    output.write_text("former")
    other = dataset / "other.xml"
    other.write_text(file.read_text().replace("<name>a<", "<name>other<"))  # the same images
    for files, message in ((), "no file of CVAT"), ((file, other), "other.xml: has frames/a/0.png, as .*a.xml has"):
        with pytest.raises(ValueError, match=message):
            bring_home(dataset, *files)
    assert output.read_text() == "former"


def test_a_video_in_which_nothing_is_to_be_seen_has_empty_masks(dataset):
    shutil.copytree(dataset / "frames" / "a", dataset / "frames" / "b")
    item = {"image": [f"frames/b/{i}.png" for i in range(3)], "video": "b", "outline": [[], [], []]}
    write_list(dataset, ITEM, item)
    folder = export(dataset)
    first, second = load_mask_datalist(dataset, bring_home(dataset, folder / "a.xml", folder / "b.xml", masks="new"))
    shown = [bool(read_mask(path).any()) for path in (*first["mask"], *second["mask"])]
    assert shown == [True, False, True, False, False, False]


@pytest.mark.parametrize("command", [to_cvat, to_coco])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": None}, "expected 3 entries, one a frame, of `box`, .*, found none of them"),
        ({"mask": None, "box": [[]], "box_label": [[]]}, "expected 3 entries, .*, found {'box': 1}"),
        ({"mask": None, "tag": [[]] * 4}, "expected 3 entries, .*, found {'tag': 4}"),
        ({"box": [[[1, 1, 4, 4]], [], []], "box_label": [[2], [], []]}, "a: frame 0 shows class 2; expected 1 to 1"),
        ({"box": [[[1, 1, 4, 4]], [], []], "box_label": [[1]]}, "is not as it should be: IndexError: "),
    ],
)
def test_what_is_no_annotation_of_each_frame_is_not_written(dataset, command, changes, message):
    write_list(dataset, {key: value for key, value in {**ITEM, **changes}.items() if value is not None})
    with pytest.raises(ValueError, match=f"list.json.*{message}"):
        command(str(dataset), str(dataset / "list.json"), str(dataset / "out"))
    assert not (dataset / "out").exists()


@pytest.mark.parametrize("command", [to_cvat, to_coco])
def test_classes_are_written_in_the_order_of_the_datalist_alone(dataset, command):
    write_list(dataset, ITEM, labels={"1": "adenoma", "2": "other"})
    with pytest.raises(ValueError, match=r"list.json: numbers its classes in the order adenoma, other, but `class_n"):
        command(str(dataset), str(dataset / "list.json"), str(dataset / "out"), class_names=("other", "adenoma"))
    assert not (dataset / "out").exists()
