# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Each dataset is prepared from a miniature of its published layout, with the parts of it that are awkward."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, VideoEndoscopicImageStorage, generate_uid

from endofm_monai.data import load_datalist, open_clip

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


@pytest.fixture(scope="session")
def miniature(write_image: Any, write_mask: Any, write_clip: Any) -> Any:
    """Builds the published layout of a dataset in a folder; the expected totals come with it."""

    def cvc_clinicdb(root: Path) -> dict[str, int]:
        for number in range(1, 613):  # 1-based, of mixed suffixes; one mask is missing
            suffix = "png" if number % 2 else "tif"
            write_image(root / "Original" / f"{number}.{suffix}", image=np.full((16, 16, 3), number % 256, np.uint8))
            if number != 612:
                write_mask(root / "Ground Truth" / f"{number}.tif", (2, 4, 10, 14), (16, 16))
        return {"videos": 28, "clips": 28, "frames": 612 - 21}

    def ldpolypvideo(root: Path) -> dict[str, int]:
        for part, video, frames in (("TrainValid", "1", 12), ("TrainValid", "10", 3), ("Test", "2", 4)):
            for frame in range(1, frames + 1):
                write_image(root / part / "Images" / video / f"{frame}.jpg", int(video), frame)
                boxes = [] if frame == 1 else ["10 8 30 24"] if frame > 2 else ["10 8 30 24", "1 1 5 5"]
                annotation = root / part / "Annotations" / video / f"{frame}.txt"
                annotation.parent.mkdir(parents=True, exist_ok=True)
                annotation.write_text("\n".join([str(len(boxes)), *boxes, ""]))
        (root / "TrainValid" / "Annotations" / "10" / "2.txt").unlink()
        return {"videos": 2, "clips": 2, "frames": 16}

    def polypdiag(root: Path) -> dict[str, int]:
        lists: dict[str, list[str]] = {"train": [], "val": []}
        for number in range(1, 13):
            name = f"{'Polyp video' if number % 2 else 'normal'} {number}.mp4"
            write_clip(root / "videos" / name, number, 9)
            lists["train" if number <= 10 else "val"].append(f"{name},{number % 2}")
        (root / "splits").mkdir()
        for part, lines in lists.items():
            (root / "splits" / f"{part}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
        return {"videos": 12, "clips": 12, "frames": 108}

    def kumc(root: Path) -> dict[str, int]:
        names = {"train2019": "Adenomatous", "val2019": "hyperplastic", "test2019": "AD"}
        for part, name in names.items():
            for frame in (1, 2, 10, 11):
                write_image(root / part / "Image" / "3" / f"{frame}.jpg", len(part), frame)
                bottom = 8 if frame == 11 else 24
                box = f"<bndbox><xmin>-2</xmin><ymin>8</ymin><xmax>70</xmax><ymax>{bottom}</ymax></bndbox>"
                found = f"<object><name>{name}</name>{box}</object>" if frame > 1 else ""
                path = root / part / "Annotation" / "3" / f"{frame}.xml"
                path.parent.mkdir(parents=True, exist_ok=True)
                size = "<size><width>64</width><height>48</height></size>"
                path.write_text(f"<annotation>{size}{found}</annotation>")
        return {"videos": 3, "clips": 3, "frames": 12}

    def kvasir_seg(root: Path) -> dict[str, int]:
        boxes = {}
        for number in range(30):
            write_image(root / "images" / f"cju{number}.jpg", number)
            write_mask(root / "masks" / f"cju{number}.jpg")
            box = {"label": "polyp", "xmin": 9, "ymin": 7, "xmax": 30, "ymax": 24}
            boxes[f"cju{number}"] = {"height": 48, "width": 64, "bbox": [box]}
        (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
        return {"videos": 30, "clips": 30, "frames": 30}

    def sun_seg(root: Path) -> dict[str, int]:
        for folder, case in (
            ("TrainDataset", "case1_1"),
            ("TrainDataset", "case12_3"),
            ("TestEasyDataset/Seen", "case1_2"),
            ("TestHardDataset/Unseen", "case40_1"),
        ):
            for frame in (1, 2, 10):
                name = f"case_M_2018_a2_ayy_image{frame}"
                write_image(root / folder / "Frame" / case / f"{name}.jpg", len(case), frame)
                write_mask(root / folder / "GT" / case / f"{name}.png", None if frame == 10 else (10, 8, 30, 24))
        return {"videos": 4, "clips": 4, "frames": 12}

    def colonoscopic(root: Path) -> dict[str, int]:
        for number, folder in enumerate(("adenoma/NBI", "Hyperplasic/WL", "hyperplastic lesions/WL", "Serrated/NBI")):
            write_clip(root / folder / f"lesion {number}.mp4", number, 330 if number == 0 else 20)
        return {"videos": 4, "clips": 5, "frames": 390}

    def hyperkvasir(root: Path) -> dict[str, int]:
        write_clip(root / "labeled-videos/lower-gi-tract/pathological-findings/Polyps/a.avi", 1)
        write_clip(root / "labeled-videos/upper-gi-tract/anatomical-landmarks/z-line/b.avi", 2)
        write_clip(root / "unlabeled-videos/c.avi", 3)
        return {"videos": 3, "clips": 3, "frames": 60}

    def kvasir_capsule(root: Path) -> dict[str, int]:
        write_clip(root / "labelled_videos" / "04a78ef00c5245e0_893-2118.mp4", 1)
        write_clip(root / "unlabelled_videos" / "5e59c7fdb16c4228_1160-9160.mp4", 2)
        return {"videos": 2, "clips": 2, "frames": 40}

    def cholect45(root: Path) -> dict[str, int]:
        for video in ("VID01", "VID02"):
            for frame in range(5):
                write_image(root / "data" / video / f"{frame:06d}.png", int(video[-1]), frame)
            for kind, count in (("triplet", 100), ("instrument", 6), ("verb", 10), ("target", 15)):
                rows = [
                    ",".join(map(str, [frame, *(int(label == frame) for label in range(count))])) for frame in range(5)
                ]
                (root / kind).mkdir(exist_ok=True)
                (root / kind / f"{video}.txt").write_text("\n".join(rows))
        (root / "verb" / "VID02.txt").unlink()
        return {"videos": 1, "clips": 1, "frames": 5}

    def polypgen(root: Path) -> dict[str, int]:
        for center in (1, 2, 6):
            write_image(root / f"data_C{center}" / f"images_C{center}" / "a b.jpg", center)
            write_mask(root / f"data_C{center}" / f"masks_C{center}" / "a b_mask.jpg")
        for frame in (1, 2, 10):
            write_image(root / "sequenceData/positive/seq1/images_seq1" / f"C4_{frame}.jpg", 9, frame)
            write_mask(root / "sequenceData/positive/seq1/masks_seq1" / f"C4_{frame}_mask.jpg")
        return {"videos": 4, "clips": 4, "frames": 6}

    def own_videos(root: Path) -> dict[str, int]:
        write_clip(root / "Doe_Jane_1960.mp4", 1, 40, title="Doe, Jane")
        write_clip(root / "ward 3" / "Doe_Jane_1960.mp4", 2, 20)
        for frame in (1, 2, 10):
            write_image(root / "Roe Richard" / f"{frame}.png", 3, frame)
        write_dicom(root / "IM_0001.dcm", np.random.default_rng(0).integers(40, 216, (6, 48, 64, 3), dtype=np.uint8))
        (root / "broken.mp4").write_bytes(b"no video")
        return {"videos": 4, "clips": 4, "frames": 69}

    builders = locals()
    return lambda name, root: builders[name](root)


@pytest.fixture(scope="session")
def prepared(script: Any, miniature: Any, tmp_path_factory: Any) -> Any:
    """Gives, for each dataset, its source, its output, and the expected totals; prepared once."""
    done: dict[str, tuple[Path, Path, dict[str, int]]] = {}

    def prepare(name: str) -> tuple[Path, Path, dict[str, int]]:
        if name not in done:
            source = tmp_path_factory.mktemp(name) / "source"
            source.mkdir()
            totals = miniature(name, source)
            output = source.parent / "output"
            script(f"{name}/prepare.py").prepare(str(source), str(output), workers=1)
            done[name] = source, output, totals
        return done[name]

    return prepare


def write_dicom(path: Path, frames: np.ndarray) -> None:
    """Write frames ``(T, H, W, 3)`` as a DICOM file with a patient's name."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = VideoEndoscopicImageStorage, generate_uid()
    dataset.PatientName = "Doe^Jane"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = frames.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def read(output: Path, name: str = "datalist.json") -> dict[str, Any]:
    return json.loads((output / name).read_text(encoding="utf-8"))


def items_of(output: Path) -> dict[str, list[dict[str, Any]]]:
    datalist = read(output)
    return {key: datalist[key] for key in ("training", "validation", "test") if key in datalist}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
def test_the_second_run_changes_nothing(prepared, script, name):
    source, output, _ = prepared(name)
    before = content(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.json")}
    script(f"{name}/prepare.py").prepare(str(source), str(output), workers=1)
    assert content(output) == before
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.json")} == times


@pytest.mark.parametrize("name", NAMES)
def test_cards_tell_what_there_is_to_know(script, name):
    card = (Path(script(f"{name}/prepare.py").__file__).parent / "README.md").read_text(encoding="utf-8")
    headings = ["Access", "Layout", "Prepare"] if name == "own_videos" else ["Licence", "Access", "Layout", "Prepare"]
    for heading in headings:
        assert f"## {heading}" in card
    assert "```" in card.split("## Layout")[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "own_videos"])
def test_another_datasets_folder_is_named(prepared, script, tmp_path, name):
    other, expected = ("kumc", "KUMC") if name != "kumc" else ("cvc_clinicdb", "CVC-ClinicDB")
    source, _, _ = prepared(other)
    with pytest.raises(ValueError, match=f"it looks like .*{expected}"):
        script(f"{name}/prepare.py").prepare(str(source), str(tmp_path / "output"))
    assert not (tmp_path / "output").exists()


def test_missing_annotations_are_named(prepared, script, tmp_path):
    source, _, _ = prepared("kvasir_seg")
    shutil.copytree(source / "images", tmp_path / "source" / "images")
    shutil.copytree(source / "masks", tmp_path / "source" / "masks")
    with pytest.raises(ValueError, match=r"is not Kvasir-SEG as its card describes it, kavsir_bboxes\.json missing$"):
        script("kvasir_seg/prepare.py").prepare(str(tmp_path / "source"), str(tmp_path / "output"))


def test_an_archive_unpacked_in_a_folder_of_its_own(prepared, script, tmp_path):
    source, output, _ = prepared("kumc")
    shutil.copytree(source, tmp_path / "KUMC" / "archive")
    script("kumc/prepare.py").prepare(str(tmp_path / "KUMC"), str(tmp_path / "output"), workers=1)
    assert read(tmp_path / "output") == read(output)


def test_cvc_sequences_keep_their_order_and_are_split_apart(prepared, script):
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
    assert "Annotations/10/2.txt: holds no readable boxes" in read(output, "manifest.json")["problems"][0]


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


def test_polypdiag_reports_a_video_in_both_lists(miniature, script, tmp_path):
    source = tmp_path / "source"
    miniature("polypdiag", source)
    shutil.copy(source / "videos" / "normal 2.mp4", source / "videos" / "normal 12.mp4")
    with pytest.raises(ValueError, match="1 problems"):
        script("polypdiag/prepare.py").prepare(str(source), str(tmp_path / "output"), workers=1, strict=True)
    problem = read(tmp_path / "output", "manifest.json")["problems"][0]
    assert problem == "test/normal_12 (test): is the same, byte for byte, as training/normal_2 (training)"


def test_kumc_boxes_are_clamped_and_classes_recognized(prepared):
    _, output, _ = prepared("kumc")
    lists = items_of(output)
    for section, label in (("training", 1), ("validation", 2), ("test", 1)):
        item = lists[section][0]
        assert [Path(path).stem for path in item["image"]] == ["1", "2", "10", "11"]
        assert item["box"] == [[], [[0, 8, 63, 24]], [[0, 8, 63, 24]], []]
        assert item["box_label"] == [[], [label], [label], []]


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


def test_sun_seg_frames_are_in_natural_order(prepared):
    _, output, _ = prepared("sun_seg")
    lists = items_of(output)
    assert len(lists["test"]) == 2
    item = lists["test"][0]
    for key in ("image", "mask"):
        assert [path.rpartition("image")[2].split(".")[0] for path in item[key]] == ["1", "2", "10"]
    assert item["box"] == [[[10, 8, 30, 24]], [[10, 8, 30, 24]], []]


def test_sun_negatives_do_not_overlap(miniature, script, write_image, tmp_path):
    source = tmp_path / "source"
    miniature("sun_seg", source)
    for frame in range(310):
        write_image(source / "SUN-Negative" / "case1" / f"image{frame}.jpg", 5, frame)
    script("sun_seg/prepare.py").prepare(str(source), str(tmp_path / "output"), negatives=True, workers=1)
    clips = [item["image"] for item in items_of(tmp_path / "output")["training"] if item["label"] == 0]
    assert [len(clip) for clip in clips] == [150, 160]
    assert not set(clips[0]) & set(clips[1])


def test_colonoscopic_classes_are_recognized_and_long_videos_cut(prepared):
    _, output, _ = prepared("colonoscopic")
    items = items_of(output)["training"]
    assert [item["label"] for item in items] == [0, 0, 1, 1, 2]
    assert [item["image"].partition("#")[2] for item in items[:2]] == ["frames=0-149", "frames=150-329"]


def test_hyperkvasir_labels_are_findings(prepared, miniature, script, write_image, tmp_path):
    _, output, _ = prepared("hyperkvasir")
    assert read(output)["labels"] == {"0": "polyps", "1": "z-line"}
    assert [item.get("label") for item in items_of(output)["training"]] == [0, 1, None]
    for number in range(20):
        write_image(tmp_path / "source/labeled-images/lower-gi-tract/findings" / f"polyp/{number}.jpg", number)
    script("hyperkvasir/prepare.py").prepare(str(tmp_path / "source"), str(tmp_path / "out"), part="images", workers=1)
    assert sum(len(items) for items in items_of(tmp_path / "out").values()) == 20


def test_cholect45_has_the_actions_of_each_frame(prepared):
    _, output, _ = prepared("cholect45")
    item = items_of(output)["training"][0]
    assert item["triplet"] == item["verb"] == [[0], [1], [2], [3], [4]]
    assert "verb/VID02.txt: is no readable table" in read(output, "manifest.json")["problems"][0]


def test_polypgen_centers_are_split_apart(prepared):
    _, output, _ = prepared("polypgen")
    lists = items_of(output)
    assert {section: [item.get("center") for item in items] for section, items in lists.items()} == {
        "training": [1, 2],
        "validation": [None],
        "test": [6],
    }
    assert [Path(path).stem for path in lists["validation"][0]["image"]] == ["C4_1", "C4_2", "C4_10"]


def test_own_videos_do_not_tell_who_they_are_of(prepared, script):
    source, output, _ = prepared("own_videos")
    for name, data in content(output).items():
        if not name.startswith("private"):
            assert b"Doe" not in data
            assert "Doe" not in name
            assert b"Richard" not in data
    with open(output / "private/sources.csv", encoding="utf-8") as file:
        table = file.read()
    assert "ward 3/Doe_Jane_1960.mp4" in table
    videos = [item["video"] for item in items_of(output)["training"]]
    shutil.copy(source / "broken.mp4", source / "a_new_one.mp4")
    script("own_videos/prepare.py").prepare(str(source), str(output), workers=1)
    assert [item["video"] for item in items_of(output)["training"]] == videos
    (source / "a_new_one.mp4").unlink()
