# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Datasets as they lie on disks: unpacked in part or one folder deeper, with copies, and what systems put beside."""

from __future__ import annotations

import json

import pytest
from dataset_files import items_of, prepare_set, read, script, write_clip, write_image, write_mask


def test_a_folder_without_frames_is_told_and_the_others_are_prepared(tmp_path):
    for case in ("case1_1", "case2_1 (1)"):
        write_image(tmp_path / f"source/TrainDataset/Frame/{case}/1.jpg", seed=len(case))
        write_mask(tmp_path / f"source/TrainDataset/GT/{case}/1.png")
    (tmp_path / "source/TrainDataset/Frame/case3_1").mkdir()
    prepare_set("sun_seg", tmp_path / "source", tmp_path / "out")
    names = {item["video"] for items in items_of(tmp_path / "out").values() for item in items}
    assert names == {"TrainDataset/case1_1", "TrainDataset/case2_1__1_"}
    assert read(tmp_path / "out", "manifest.json")["problems"] == [
        "TrainDataset/case3_1: its folder holds no frame images"
    ]


def test_frames_of_cholect45_that_no_line_can_belong_to_are_named(tmp_path):
    for video in ("VID01", "VID02"):
        write_image(tmp_path / f"source/data/{video}/000000.png")
        for kind in ("triplet", "instrument", "verb", "target"):
            path = tmp_path / f"source/{kind}/{video}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("0,1,0\n")
    copy = write_image(tmp_path / "source/data/VID02/000000 (1).png")
    prepare_set("cholect45", tmp_path / "source", tmp_path / "out")
    manifest = read(tmp_path / "out", "manifest.json")
    assert manifest["problems"] == [f"{copy}: must be named by the number of its frame, as 000001.png"]
    assert [video["name"] for video in manifest["videos"]] == ["VID01"]


def test_what_systems_put_beside_images_is_no_class(tmp_path):
    for finding in ("cecum", "polyps"):
        folder = tmp_path / "source/labeled-images/lower-gi-tract" / finding
        write_image(folder / "1.jpg", seed=len(finding))
        write_image(folder / "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg")
        write_image(tmp_path / "source/labeled-images/__MACOSX" / finding / "1.jpg")
    prepare_set("hyperkvasir", tmp_path / "source", tmp_path / "out", part="images")
    assert read(tmp_path / "out", "datalist.json")["labels"] == {"0": "cecum", "1": "polyps"}
    assert sum(map(len, items_of(tmp_path / "out").values())) == 2


def test_one_of_the_folders_of_videos_is_enough(tmp_path):
    write_clip(tmp_path / "source/labeled-videos/lower-gi-tract/polyps/a.avi", 4)
    prepare_set("hyperkvasir", tmp_path / "source", tmp_path / "out")
    assert [item["label"] for item in items_of(tmp_path / "out")["training"]] == [0]


def test_a_class_that_was_unpacked_deeper_is_not_missing(tmp_path):
    write_image(tmp_path / "source/labelled_images/polyp/Polyp/a_1.jpg", seed=1)
    write_image(tmp_path / "source/labelled_images/Ulcer/a_2.jpg", seed=2)
    prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "out", part="images")
    (items,) = items_of(tmp_path / "out").values()
    assert {item["video"]: item["label"] for item in items} == {"Ulcer/a_2": 13, "polyp/a_1": 10}
    (tmp_path / "source/labelled_images/Erosion").mkdir()
    with pytest.raises(ValueError, match="Erosion: holds no images"):
        prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "out", part="images")


def test_dots_in_the_names_of_folders_tell_them_apart(tmp_path):
    for number, name in enumerate(("adenoma/case.1", "adenoma/case.2", "hyperplastic/case.1")):
        write_image(tmp_path / "source" / name / "1.jpg", seed=number)
    prepare_set("colonoscopic", tmp_path / "source", tmp_path / "out")
    labels = {item["video"]: item["label"] for item in items_of(tmp_path / "out")["training"]}
    assert labels == {"adenoma/case.1": 0, "adenoma/case.2": 0, "hyperplastic/case.1": 1}


def test_a_video_with_two_labels_is_named(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text('"a.mp4",1\n\nb.mp4,0\na.mp4,1\n')  # quotes of Excel
    assert script("polypdiag/prepare.py").read_list(path) == {"a.mp4": 1, "b.mp4": 0}
    path.write_text("a.mp4,1\nb.mp4,0\na.mp4,0\n")
    with pytest.raises(ValueError, match=r"train\.txt:3: lists a\.mp4 with two labels"):
        script("polypdiag/prepare.py").read_list(path)


@pytest.mark.parametrize(("name", "still"), [("kvasir_seg", "cju3"), ("polypgen", "C6/a b")])
def test_names_in_a_list_of_which_there_is_no_image_are_told(prepared, tmp_path, name, still):
    source, _, _ = prepared(name)
    splits = tmp_path / "splits.csv"
    splits.write_text(f"name,section\n{still},training\n{still}.jpg,test\n")
    prepare_set(name, source, tmp_path / "out", splits=str(splits))
    problem = f"{splits}: names 1 that are not there, as {still}.jpg"
    assert read(tmp_path / "out", "manifest.json")["problems"] == [problem]
    splits.write_text(f"name,section\n{still}.jpg,test\n")
    with pytest.raises(ValueError, match=f"no video could be used: {problem}"):
        prepare_set(name, source, tmp_path / "none", splits=str(splits))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ('{"height": 48, "width": 64}', r"kavsir_bboxes\.json: holds no readable boxes of cju1"),
        (
            '{"height": 96, "width": 128, "bbox": []}',
            r"cju1\.jpg: has \(64, 48\), but its boxes are of \(128, 96\)",
        ),
    ],
)
def test_boxes_of_kvasir_seg_that_are_not_those_of_the_image_are_named(tmp_path, about, message):
    write_image(tmp_path / "images/cju1.jpg")
    write_mask(tmp_path / "masks/cju1.jpg")
    (tmp_path / "kavsir_bboxes.json").write_text(f'{{"cju1": {about}}}')
    with pytest.raises(ValueError, match=message):
        prepare_set("kvasir_seg", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("box", [[30, 24, 9, 7], [0.1, 0.1, 0.5, 0.5], [70, 8, 90, 20], ["9", "7", "30", "24"]])
def test_boxes_that_no_training_takes_are_told_when_they_are_prepared(tmp_path, box):
    about = {}
    for name, found in (("cju1", [9, 7, 30, 24]), ("cju2", box)):
        write_image(tmp_path / f"images/{name}.jpg")
        write_mask(tmp_path / f"masks/{name}.jpg")
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), found, strict=True))
        about[name] = {"height": 48, "width": 64, "bbox": [sides]}
    (tmp_path / "kavsir_bboxes.json").write_text(json.dumps(about))
    prepare_set("kvasir_seg", tmp_path, tmp_path / "out")
    (problem,) = read(tmp_path / "out", "manifest.json")["problems"]
    assert problem.startswith("cju2")
    assert [item["box"] for items in items_of(tmp_path / "out").values() for item in items] == [[[[9, 7, 30, 24]]]]


@pytest.mark.parametrize("suffix", ["_mask.JPG", "_Mask.png"])
def test_masks_of_polypgen_are_found_in_any_case(tmp_path, suffix):
    write_image(tmp_path / "data_C1/images_C1/a.JPG")
    write_mask(tmp_path / f"data_C1/masks_C1/a{suffix}")
    prepare_set("polypgen", tmp_path, tmp_path / "out")
    assert items_of(tmp_path / "out")["training"][0]["box"] == [[[10, 8, 30, 24]]]


def test_xml_of_another_kind_does_not_make_frames_without_polyps(tmp_path):
    (tmp_path / "1.xml").write_text("<annotations><image><box label='AD'/></image></annotations>")
    with pytest.raises(ValueError, match="expected <annotation>, as Pascal VOC has it, found <annotations>"):
        script("kumc/prepare.py").read_boxes(tmp_path / "1.xml")


def test_copies_are_made_of_frame_images_alone(tmp_path):
    write_clip(tmp_path / "source/a.mp4")
    write_image(tmp_path / "source/b/1.png")
    prepare_set("own_videos", tmp_path / "source", tmp_path / "out", mode="copy")
    manifest = read(tmp_path / "out", "manifest.json")
    assert [video["name"] for video in manifest["videos"]] == ["video_00002"]
    assert manifest["problems"] == ["video_00001: could not be used"]


def test_boxes_of_kumc_need_no_size_of_the_frame(tmp_path):
    corners = "".join(f"<{side}>{number}</{side}>" for number, side in enumerate(("xmin", "ymin", "xmax", "ymax"), 1))
    text = f"<annotation><object><name>AD</name><bndbox>{corners}</bndbox></object></annotation>"
    (tmp_path / "1.xml").write_text(text)
    assert script("kumc/prepare.py").read_boxes(tmp_path / "1.xml") == ([[1, 2, 3, 4]], [1], None)


def test_frames_of_an_earlier_table_are_in_no_clip(tmp_path):
    crop_clips = script("cvc_clinicdb/crop_clips.py").crop_clips
    for number in range(1, 5):
        write_image(tmp_path / f"source/frames/{number:04d}.png", number)

    def cut(first: int, last: int, split: str = "train", more: str = "") -> str:
        head = "clip_id,first_frame,last_frame,x,y,w,h,label_polyp,split"
        (tmp_path / "source/clips_cls.csv").write_text(f"{head}\na,{first},{last},8,4,32,24,1,{split}\n{more}")
        return crop_clips(str(tmp_path / "source"), str(tmp_path / "out"))

    cut(1, 3)
    assert read(tmp_path / "out") == {"training": [{"image": "a", "label": 1}]}
    cut(1, 3)
    for more, message in (
        ("a,1,3,0,0,32,24,0,val", "two clips 'a': "),
        ("b,1,3,0.5,0,32,24,0,val", "expected clip_id, split, and whole numbers as x, y, w, h"),
        ("b,1,3,0,0,32,24,2,val", "b: expected a window, frames in order and 0 or 1"),
        ("b,3,1,0,0,32,24,0,val", "b: expected a window, frames in order and 0 or 1"),
    ):
        with pytest.raises(ValueError, match=rf"clips_cls\.csv: {message}"):
            cut(1, 3, more=more)
    with pytest.raises(ValueError, match=r"out/a/0001\.png: is there of another table or clip of this name"):
        cut(2, 4)
    with pytest.raises(ValueError, match=r"clips_cls\.csv: a: expected a split of train, val, test, found 'Train'"):
        cut(1, 3, "Train")
    head = "clip_id,first_frame,last_frame,x,y,w,h,label_polyp"
    (tmp_path / "source/clips_cls.csv").write_text(f"{head}\na,1,3,8,4,32,24,1")
    with pytest.raises(ValueError, match=r"clips_cls\.csv: expected clip_id, split, and"):
        crop_clips(str(tmp_path / "source"), str(tmp_path / "out"))
    (tmp_path / "source/clips_cls.csv").write_text(f"{head},split,sequence_id\na,1,3,8,4,32,24,1,test,7\n")
    crop_clips(str(tmp_path / "source"), str(tmp_path / "other"))
    assert read(tmp_path / "other") == {"test": [{"image": "a", "label": 1, "group": "7"}]}
