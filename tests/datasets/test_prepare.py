# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for each dataset, prepared from a miniature of its published layout, and what for single ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_files import items_of, prepare_set, read, script, write_clip, write_image
from dataset_miniatures import miniature
from PIL import Image
from small_sets import content

from endofm_monai.data import load_datalist, open_clip
from endofm_monai.preparation.sources import SECTIONS, read_splits

NAMES = (
    "cholect45",
    "colonoscopic",
    "cvc_clinicdb",
    "hyperkvasir",
    "kumc",
    "kvasir_capsule",
    "kvasir_seg",
    "ldpolypvideo",
    "own_videos",
    "polypdiag",
    "polypgen",
    "sun_seg",
)


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_exact_and_every_item_can_be_read(prepared, name):
    _, output, totals = prepared(name)
    manifest = read(output, "manifest.json")
    assert {key: manifest["totals"][key] for key in totals} == totals
    dataset_dir = output / manifest["dataset_dir"]
    frames = 0
    for section in items_of(output):
        for item in load_datalist(dataset_dir, output / "datalist.json", section, label_key="mask"):
            with open_clip(item["image"]) as reader:
                count = reader.probe().frames
                assert reader.read([0, count - 1]).shape[:2] == (3, 2)
            frames += count
            for key in ("mask", "box", "box_label"):
                assert len(item.get(key, range(count))) == count
    assert frames == totals["frames"]


@pytest.mark.parametrize("name", NAMES)
def test_the_second_run_changes_nothing(prepared, name):
    source, output, _ = prepared(name)
    before = content(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.json")}
    script(f"{name}/prepare.py").prepare(str(source), str(output), workers=1)
    assert content(output) == before
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.json")} == times


@pytest.mark.parametrize("name", NAMES)
def test_cards_tell_what_there_is_to_know(name):
    card = (Path(script(f"{name}/prepare.py").__file__).parent / "README.md").read_text(encoding="utf-8")
    headings = ["Access", "Layout", "Prepare"] if name == "own_videos" else ["Licence", "Access", "Layout", "Prepare"]
    for heading in headings:
        assert f"## {heading}" in card
    assert "```" in card.split("## Layout")[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "own_videos"])
def test_another_datasets_folder_is_named(prepared, tmp_path, name):
    other, expected = ("kumc", "KUMC") if name != "kumc" else ("cvc_clinicdb", "CVC-ClinicDB")
    source, _, _ = prepared(other)
    with pytest.raises(ValueError, match=f"it looks like .*{expected}"):
        script(f"{name}/prepare.py").prepare(str(source), str(tmp_path / "output"))
    assert not (tmp_path / "output").exists()


def test_missing_annotations_are_named(prepared, tmp_path):
    source, _, _ = prepared("kvasir_seg")
    shutil.copytree(source / "images", tmp_path / "source" / "images")
    shutil.copytree(source / "masks", tmp_path / "source" / "masks")
    with pytest.raises(ValueError, match=r"is not Kvasir-SEG as its card describes it, kavsir_bboxes\.json missing$"):
        script("kvasir_seg/prepare.py").prepare(str(tmp_path / "source"), str(tmp_path / "output"))


def test_an_archive_unpacked_in_a_folder_of_its_own(prepared, tmp_path):
    source, output, _ = prepared("kumc")
    shutil.copytree(source, tmp_path / "KUMC" / "archive")
    prepare_set("kumc", tmp_path / "KUMC", tmp_path / "output")
    assert read(tmp_path / "output") == read(output)


def test_two_sources_of_the_same_name(prepared, tmp_path):
    source, _, _ = prepared("kvasir_seg")
    shutil.copytree(source, tmp_path / "source")
    write_image(tmp_path / "source" / "images" / "cju3.png")
    with pytest.raises(
        ValueError, match=r"images: holds both cju3\.jpg and cju3\.png|holds both cju3\.png and cju3\.jpg"
    ):
        script("kvasir_seg/prepare.py").prepare(str(tmp_path / "source"), str(tmp_path / "output"))


def test_a_mistake_ends_the_command_with_one_line(monkeypatch, tmp_path):
    module = script("kvasir_seg/prepare.py")
    monkeypatch.setattr("sys.argv", ["prepare.py", "--source", str(tmp_path / "absent"), "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: .*absent: is not an existing folder$"):
        module.run_from_command_line(module.prepare)


def test_cvc_sequences_keep_their_order_and_are_split_apart(prepared):
    source, output, _ = prepared("cvc_clinicdb")
    lists = items_of(output)
    names = {section: {item["video"] for item in items} for section, items in lists.items()}
    assert {section: len(videos) for section, videos in names.items()} == {"training": 19, "validation": 4, "test": 5}
    assert not names["training"] & names["test"] | names["training"] & names["validation"]
    second = next(item for item in lists["training"] if item["video"] == "sequence_02")
    assert [Path(path).stem for path in second["image"]] == [str(number) for number in range(26, 51)]
    assert all(box == [[2, 4, 10, 14]] for box in second["box"])
    mask = np.asarray(Image.open(output / second["mask"][0]))
    assert set(np.unique(mask)) == {0, 255}
    with Image.open(source / "Original/26.tif") as original, Image.open(output / second["image"][0]) as copied:
        np.testing.assert_array_equal(np.asarray(original), np.asarray(copied))
    assert "Ground Truth/612.tif: is missing" in read(output, "manifest.json")["problems"][0]

    module = script("cvc_clinicdb/prepare.py")
    assert sum(module.LENGTHS) == 612
    assert len(set(module.PUBLISHED_TRAINING) & set(module.PUBLISHED_TEST)) == 7
    published = read(output, "datalist_published.json")
    assert [item["image"][0] for item in published["test"]][:3] == [
        "frames/sequence_03/51.png",
        "frames/sequence_16/318.png",
        "frames/sequence_21/429.png",
    ]


def test_ldpolyp_boxes_belong_to_their_frames(prepared):
    _, output, _ = prepared("ldpolypvideo")
    item = items_of(output)["training"][0]
    assert [Path(path).stem for path in item["image"]] == [str(number) for number in range(1, 13)]
    assert item["box"][:3] == [[], [[10, 8, 30, 24], [1, 1, 5, 5]], [[10, 8, 30, 24]]]
    problems = read(output, "manifest.json")["problems"]
    assert "Annotations/10/2.txt: holds no readable boxes" in problems[0]
    assert "Test/Annotations/2/99.txt: belongs to no image" in problems[1]


def test_kumc_boxes_are_exact_and_what_is_left_out_is_reported(prepared):
    source, output, _ = prepared("kumc")
    lists = items_of(output)
    for section, label in (("training", 1), ("validation", 2), ("test", 1)):
        item = lists[section][0]
        assert [Path(path).stem for path in item["image"]] == ["1", "2", "10", "11"]
        assert item["box"] == [[], [[0, 8, 63, 24]], [[0, 8, 63, 24.5]], []]
        assert item["box_label"] == [[], [label], [label], []]
    problems = read(output, "manifest.json")["problems"]
    empty = "the box [-2.0, 8.0, 70.0, 8.0] is left out, as nothing of it is in the frame"
    assert problems == [
        f"{source / 'train2019/Annotation/3/11.xml'}: {empty}",
        f"{source / 'val2019/Annotation/3/11.xml'}: {empty}",
        f"{source / 'val2019/Annotation/3/12.xml'}: belongs to no image in {source / 'val2019/Image/3'}",
        f"{source / 'test2019/Annotation/3/11.xml'}: {empty}",
    ]


def test_kvasir_seg_splits_by_name(prepared):
    _, output, _ = prepared("kvasir_seg")
    lists = items_of(output)
    assert sum(len(items) for items in lists.values()) == 30
    assert len(lists["training"]) > 15
    item = lists["training"][0]
    assert item["box"] == [[[9, 7, 30, 24]]]
    mask = np.asarray(Image.open(output / item["mask"][0]))
    assert set(np.unique(mask)) == {0, 255}
    assert 280 < (mask > 0).sum() < 360


@pytest.mark.parametrize(
    ("name", "listed"), [("kvasir_seg", {"cju3": "test", "cju4": "training"}), ("polypgen", {"C6/a b": "training"})]
)
def test_a_list_says_which_section_each_still_belongs_to(prepared, tmp_path, name, listed):
    source, _, _ = prepared(name)
    splits = tmp_path / "splits.csv"
    splits.write_text("name,section,group\n" + "".join(f"{still},{section},g\n" for still, section in listed.items()))
    prepare_set(name, source, tmp_path / "out", splits=str(splits))
    lists = items_of(tmp_path / "out")
    found = {item["video"]: (section, item["group"]) for section, items in lists.items() for item in items}
    assert found == {still.replace(" ", "_"): (section, "g") for still, section in listed.items()}
    splits.write_text("name,section\ncju3,val\n")
    with pytest.raises(ValueError, match=r"splits.csv: line 2: expected `name` and `section` of training, validation"):
        prepare_set(name, source, tmp_path / "out", splits=str(splits))


@pytest.mark.parametrize(("name", "stills"), [("kvasir_seg", 1000), ("polypgen", 1094)])
def test_the_lists_that_come_along(name, stills):
    listed = read_splits(Path(__file__).parents[2] / "datasets" / name / "splits.csv")
    assert len(listed) == stills
    section_of = {(labels["group"], section) for section, labels in listed.values()}
    assert {section for _, section in section_of} == {"training", "validation", "test"}
    assert len(section_of) == len({group for group, _ in section_of})  # a group is in one section


def test_sun_seg_frames_are_in_natural_order(prepared):
    _, output, _ = prepared("sun_seg")
    lists = items_of(output)
    assert len(lists["test"]) == 2
    item = lists["test"][0]
    for key in ("image", "mask"):
        assert [path.rpartition("image")[2].split(".")[0] for path in item[key]] == ["1", "2", "10"]
    assert item["box"] == [[[10, 8, 30, 24]], [[10, 8, 30, 24]], []]
    assert [item["group"] for item in lists["test"]] == ["case1", "case40"]  # clips of one case are of one patient


def test_sun_negatives_do_not_overlap(tmp_path):
    source = tmp_path / "source"
    miniature("sun_seg", source)
    for frame in range(310):
        write_image(source / "SUN-Negative" / "case1" / f"image{frame}.jpg", 5, frame)
    prepare_set("sun_seg", source, tmp_path / "output", negatives=True)
    clips = [item["image"] for item in items_of(tmp_path / "output")["training"] if item["label"] == 0]
    assert [len(clip) for clip in clips] == [150, 160]
    assert not set(clips[0]) & set(clips[1])


def test_cholect45_has_the_actions_of_each_frame(prepared):
    _, output, _ = prepared("cholect45")
    item = items_of(output)["training"][0]
    assert item["triplet"] == item["verb"] == [[0], [1], [2], [3], [4]]
    assert "verb/VID02.txt: is no readable table" in read(output, "manifest.json")["problems"][0]


def test_polypgen_centers_are_split_apart(prepared):
    _, output, _ = prepared("polypgen")
    lists = items_of(output)
    assert {section: [item.get("center") for item in items] for section, items in lists.items()} == {
        "training": [1, 2, 3],
        "validation": [None],
        "test": [6],
    }
    assert [Path(path).stem for path in lists["validation"][0]["image"]] == ["C4_1", "C4_2", "C4_10"]


def test_polypgen_negatives_have_no_boxes(prepared, tmp_path):
    source, _, _ = prepared("polypgen")
    prepare_set("polypgen", source, tmp_path, negatives=True, mode="index")
    (item,) = [item for item in items_of(tmp_path)["training"] if item["video"] == "seq1_neg"]
    assert [Path(path).name for path in item["image"]] == ["1.jpg", "2.jpg"]
    assert item["box"] == item["box_label"] == [[], []]
    assert "mask" not in item


def test_hyperkvasir_images(prepared, tmp_path):
    for number in range(20):
        write_image(tmp_path / "source/labeled-images/lower-gi-tract/findings" / f"polyp/{number}.jpg", number)
    prepare_set("hyperkvasir", tmp_path / "source", tmp_path / "labeled", part="images")
    assert read(tmp_path / "labeled")["labels"] == {"0": "polyp"}
    assert sum(len(items) for items in items_of(tmp_path / "labeled").values()) == 20
    source, _, _ = prepared("hyperkvasir")
    prepare_set("hyperkvasir", source, tmp_path / "unlabeled", part="unlabeled-images")
    assert items_of(tmp_path / "unlabeled") == {
        "training": [{"image": ["unlabeled-images/images/d.jpg"], "video": "unlabeled-images/images/d"}]
    }
    with pytest.raises(ValueError, match="part: expected one of videos, images, unlabeled-images, found all"):
        prepare_set("hyperkvasir", source, tmp_path / "all", part="all")


def test_kvasir_capsule_images_have_the_class_of_their_folder_and_boxes(tmp_path):
    images = tmp_path / "source" / "labelled_images"
    for folder, frame in (("Blood - fresh", 5), ("Blood - fresh", 10), ("normal_clean_mucosa", 7)):
        write_image(images / folder / f"04a78ef00c5245e0_{frame}.jpg", frame)
    prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "plain", part="images")
    (items,) = items_of(tmp_path / "plain").values()  # of one video, so in one section
    assert [(item["label"], item["group"]) for item in items] == [(label, "04a78ef00c5245e0") for label in (2, 2, 9)]
    assert "box" not in items[0]
    header = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"
    name = "04a78ef00c5245e0_10.jpg;04a78ef00c5245e0;10;Luminal;Blood - fresh"
    table = tmp_path / "source" / "metadata.csv"
    table.write_text(f"{header}\n{name};12;4;30;4;30;20;12;20\n{name.replace('10', '5')};;;;;;;;\n")
    prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "boxes", part="images")
    (items,) = items_of(tmp_path / "boxes").values()
    assert [item["box"] for item in items] == [[[]], [[[12, 4, 30, 20]]], [[]]]
    assert [item["box_label"] for item in items] == [[[]], [[3]], [[]]]  # from 1 on
    table.write_text(f"{header}\n{name};12;4;30;4;;;;\n")
    with pytest.raises(ValueError, match=r"metadata\.csv:2: holds no readable box"):
        prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "bad", part="images")
    (images / "Blood - fresh").rename(images / "bubbles")
    table.unlink()
    with pytest.raises(ValueError, match="bubbles: expected a folder of one of the classes ampulla of vater"):
        prepare_set("kvasir_capsule", tmp_path / "source", tmp_path / "bad", part="images")


def test_polypdiag_takes_its_validation_from_training(prepared):
    _, output, _ = prepared("polypdiag")
    lists = items_of(output)
    assert {section: sorted(item["label"] for item in items) for section, items in lists.items()} == {
        "training": [0] * 4 + [1] * 4,
        "validation": [0, 1],
        "test": [0, 1],
    }
    published = read(output, "datalist_published.json")
    assert (len(published["training"]), published["validation"]) == (10, lists["test"])


def test_the_share_for_validation_is_chosen(prepared, tmp_path):
    for name, share, counts in (("polypdiag", 0.4, (6, 4, 2)), ("sun_seg", 1, (0, 2, 2))):
        source, output = prepared(name)[0], tmp_path / name
        prepare_set(name, source, output, validation_share=share)
        assert tuple(len(items_of(output).get(section, [])) for section in SECTIONS) == counts


def test_polypdiag_reports_a_video_in_both_lists(tmp_path):
    source = tmp_path / "source"
    miniature("polypdiag", source)
    shutil.copy(source / "videos" / "normal 2.mp4", source / "videos" / "normal 12.mp4")
    with pytest.raises(ValueError, match="1 problems"):
        prepare_set("polypdiag", source, tmp_path / "output", strict=True)
    problem = read(tmp_path / "output", "manifest.json")["problems"][0]
    assert problem == "test/normal_12 (test): is the same, byte for byte, as training/normal_2 (training)"


def test_colonoscopic_classes_are_recognized_and_long_videos_cut(prepared):
    _, output, _ = prepared("colonoscopic")
    items = items_of(output)["training"]
    assert [item["label"] for item in items] == [0, 0, 1, 1, 2]
    assert [item["image"].partition("#")[2] for item in items[:2]] == ["frames=0-149", "frames=150-329"]


def test_hyperkvasir_labels_are_findings(prepared):
    _, output, _ = prepared("hyperkvasir")
    assert read(output)["labels"] == {"0": "polyps", "1": "z-line"}
    assert [item.get("label") for item in items_of(output)["training"]] == [0, 1, None]


def test_ldpolypvideos_without_boxes(tmp_path):
    for kind, name in (("without", "1_1"), ("with", "2_1"), ("with", "2_10")):
        write_clip(tmp_path / "source" / f"videos {kind} polyps" / f"{name}.avi", int(name[0]), 9)
    prepare_set("ldpolypvideo", tmp_path / "source", tmp_path / "out", part="videos")
    assert [(item["video"], item["label"]) for item in items_of(tmp_path / "out")["training"]] == [
        ("videos_without_polyps/1_1", 0),
        ("videos_with_polyps/2_1", 1),
        ("videos_with_polyps/2_10", 1),
    ]
    assert read(tmp_path / "out", "manifest.json")["published"] == {"videos": 103, "frames": 861400}
    with pytest.raises(ValueError, match="part: expected one of frames, videos, found all"):
        prepare_set("ldpolypvideo", tmp_path / "source", tmp_path / "out", part="all")
