# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endofm_monai.apps.cvat.__main__ import from_cvat, to_cvat
from endofm_monai.formats import write_video
from endofm_monai.formats.coco import datalist_from_coco
from endofm_monai.formats.masks import mask_from_points, mask_points, scale_points

BOX = '<box frame="{}" keyframe="{}" outside="{}" occluded="0" xtl="640" ytl="240" xbr="1200" ybr="480" z_order="0"/>'
POLYGON = '<polygon frame="{}" keyframe="1" outside="0" occluded="0" points="{}" z_order="0"/>'
MASK = '<mask occluded="0" left="640" top="240" width="560" height="240" z_order="0" label="polyp" rle="0, 134400"/>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A video of 20 frames of 160x96 pixels."""
    folder = tmp_path_factory.mktemp("data")
    write_video(folder / "v.mp4", np.zeros((20, 96, 160, 3), np.uint8), 25)
    return folder


def convert(
    folder: Path, tracks: str, images: str = "", drawn: str = "1280 768", **changes: Any
) -> list[dict[str, Any]]:
    width, height = drawn.split()
    meta = {"size": 20, "mode": "interpolation", "start_frame": 0, "frame_filter": "", **changes}
    texts = "".join(f"<{name}>{value}</{name}>" for name, value in meta.items() if name != "dumped")
    (folder / "v.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><name>v.mp4</name>{texts}<labels/><original_size>"
        f"<width>{width}</width><height>{height}</height></original_size><source>v.mp4</source></task>"
        f"{'<dumped>2026</dumped>' if 'dumped' in changes else ''}</meta>{tracks}{images}</annotations>"
    )
    from_cvat(str(folder / "v.xml"), dataset_dir=str(folder), output=str(folder / "v.json"))
    return json.loads((folder / "v.json").read_text())["training"]


def track(*shapes: str) -> str:
    return f'<track id="0" label="polyp" source="manual">{"".join(shapes)}</track>'


def test_boxes_of_cvat_come_in_pixels_of_the_file(folder):
    (item,) = convert(folder, track(BOX.format(3, 1, 0), BOX.format(8, 1, 1)))
    assert item["image"] == "v.mp4"
    assert item["box"][3] == [[80, 30, 150, 60]]
    assert [len(boxes) for boxes in item["box"]] == [0] * 3 + [1] * 5 + [0] * 12


def test_masks_of_cvat_come_in_pixels_of_the_file(folder):
    (item,) = convert(folder, "", "".join(f'<image id="{n}">{MASK * (n == 2)}</image>' for n in range(20)))
    mask = np.asarray(Image.open(folder / item["mask"][2]))
    assert mask.shape == (96, 160)
    assert (mask[30:60, 80:150] == 255).all()
    assert np.count_nonzero(mask) == 30 * 70


def test_a_picture_of_other_proportions_is_refused(folder):
    with pytest.raises(ValueError, match=r"v\.xml: .*v\.mp4: was drawn on frames of 1280x960, but the file has 160x96"):
        convert(folder, track(BOX.format(3, 1, 0)), drawn="1280 960")


@pytest.mark.parametrize("other", ["a/2.png", "b/1.png"])
def test_images_of_several_sizes_are_not_scaled_by_the_size_of_the_first(tmp_path, other):
    for name, size in (("a/1.png", (160, 96)), (other, (320, 192))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    images = "".join(f'<image id="{n}" name="{name}"/>' for n, name in enumerate(("a/1.png", other)))
    with pytest.raises(ValueError, match=rf"{other}: has 320x192 pixels .*, but .*a/1\.png 160x96; those of one size"):
        convert(tmp_path, "", images, "320 192", mode="annotation")


def test_more_frames_than_the_file_has_are_refused_and_a_part_is_named(folder, capsys):
    with pytest.raises(ValueError, match=r"v\.xml: has annotations of 30 frames, but .*v\.mp4 has 20"):
        convert(folder, "", size=30)
    (item,) = convert(folder, track(BOX.format(3, 1, 0)), size=10)
    assert (item["image"], len(item["box"])) == ("v.mp4#frames=0-9", 10)
    assert "v.xml: is of frames 0 to 9 of the 20 of " in capsys.readouterr().out  # perhaps of another frame rate
    convert(folder, track(BOX.format(3, 1, 0)), size=20)
    assert "is of frames" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tracks", "images", "changes"),
    [
        (track(*(BOX.format(n, 1, 0) for n in (3, 4, 6)), BOX.format(7, 1, 1)), "", {"dumped": 1}),
        (track(BOX.format(3, 1, 0), *(BOX.format(n, 0, 0) for n in (4, 6)), BOX.format(7, 1, 1)), "", {}),
        (track(POLYGON.format(4, "0,0;9,0;9,9"), POLYGON.format(6, "0,0;9,0;9,9;0,9")), "", {}),
        ("", "".join(f'<image id="{n}"/>' for n in range(20) if n != 5), {}),
    ],
    ids=["export", "interpolated", "polygon", "for images"],
)
def test_a_deleted_frame_says_nothing_about_polyps(folder, caplog, tracks, images, changes):
    first, second = convert(folder, tracks, images, **changes)
    assert (first["image"], second["image"]) == ("v.mp4#frames=0-4", "v.mp4#frames=6-19")
    assert (len(first["box"]), len(second["box"])) == (5, 14)
    assert first["video"] == second["video"] == "v.mp4"
    assert "v.xml: 1 frames were deleted or are missing (5)" in caplog.text
    if tracks and "polygon" in tracks:
        assert [item["mask"][-1] for item in (first, second)] == [
            "masks/v.mp4_0-4/000004.png",
            "masks/v.mp4_6-19/000013.png",
        ]
    to_cvat(str(folder), str(folder / "v.json"), str(folder / "xml"))
    assert {path.name for path in (folder / "xml").iterdir()} == {"v_0-4.xml", "v_6-19.xml"}


def test_a_tag_counts_across_a_deleted_frame(folder):
    tag = '<tag label="a"/>'
    images = "".join(f'<image id="{n}">{tag * (n == 2)}</image>' for n in range(20) if n != 5)
    convert(folder, "", images)
    clips = json.loads((folder / "v_tags.json").read_text())["training"]
    assert [(clip["image"], clip["label"]) for clip in clips] == [
        ("v.mp4#frames=2-4", "a"),
        ("v.mp4#frames=6-19", "a"),
    ]


def coco(
    folder: Path, *annotations: dict[str, Any], size: tuple[int, int] | None = (1280, 768), picture: str = "0.png"
) -> list[dict[str, Any]]:
    Image.new("RGB", (160, 96)).save(folder / "0.png")
    declared = dict(zip(("width", "height"), size or (), strict=False))
    content = {
        "categories": [{"id": 1, "name": "polyp"}],
        "images": [{"id": 1, "file_name": picture, **declared}],
        "annotations": [{"id": 5 + n, "image_id": 1, "category_id": 1, **each} for n, each in enumerate(annotations)],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return datalist_from_coco({"a": folder / "coco.json"}, ["polyp"], folder / "list.json", outlines=True)["a"]


def test_coco_comes_in_pixels_of_the_file(folder):
    mask = np.zeros((768, 1280), bool)
    mask[240:480, 640:1200] = True
    runs = [640 * 768 + 240, *([240, 528] * 560)[:-1], 768 - 480 + 80 * 768]
    box = {"bbox": [640, 240, 560, 240]}
    polygon = {**box, "segmentation": [[640, 240, 1200, 240, 1200, 480]]}
    (item,) = coco(folder, box, polygon, {**box, "segmentation": {"size": [768, 1280], "counts": runs}})
    assert item["box"] == [[[80, 30, 150, 60]]]
    drawn, filled = item["outline"][0]
    assert drawn["polygon"] == [80, 30, 150, 30, 150, 60]
    assert filled["mask"] == [80, 30, 70, 30, 0, 2100]
    with pytest.raises(
        ValueError, match=r"coco\.json: 0\.png: was drawn on frames of 1280x960, but the file has 160x96"
    ):
        coco(folder, box, size=(1280, 960))


def test_files_that_are_not_beside_the_datalist_are_told_of_as_boxes_are_not_scaled(folder, caplog):
    coco(folder, {"bbox": [640, 240, 560, 240]})
    assert "does not exist" not in caplog.text
    (folder / "lists").mkdir()
    (item,) = datalist_from_coco({"a": folder / "coco.json"}, ["polyp"], folder / "lists" / "list.json")["a"]
    assert item["box"] == [[[640, 240, 1200, 480]]]
    assert f"{folder}/lists/0.png: does not exist (files of 1 videos do not), so that its size is not" in caplog.text


def test_a_part_of_a_video_has_the_size_of_its_video(folder):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 40, 40]}
    content = {
        "categories": [{"id": 1, "name": "polyp"}],
        "videos": [{"id": 1, "name": "v", "file_name": "v.mp4#frames=0-1"}],
        "images": [{"id": 1, "file_name": "0", "video_id": 1, "frame_index": 0, "width": 320, "height": 192}],
        "annotations": [box],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    (item,) = datalist_from_coco({"a": folder / "coco.json"}, ["polyp"], folder / "list.json")["a"]
    assert item["box"] == [[[10, 10, 30, 30]]]


HALF = {"size": [48, 80], "counts": [48 * 40, 48 * 40]}  # the right half of the picture


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": (160, 96)}, [80, 0, 80, 96, 0, 80 * 96]),
        ({"size": (1280, 768)}, [80, 0, 80, 96, 0, 80 * 96]),
        ({"size": None}, [80, 0, 80, 96, 0, 80 * 96]),
        ({"size": (320, 192), "picture": "missing.png"}, [160, 0, 160, 192, 0, 160 * 192]),
        ({"size": None, "picture": "missing.png"}, [40, 0, 40, 48, 0, 40 * 48]),
    ],
    ids=["as the file", "of another", "undeclared", "no file", "unknown"],
)
def test_a_mask_of_coco_has_a_size_of_its_own(folder, changes, expected):
    (item,) = coco(folder, {"segmentation": HALF}, **changes)
    assert [outline["mask"] for outline in item["outline"][0]] == [expected]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (160, 96)}, "its mask: was drawn on frames of 80x40, but the file has 160x96"),
        ({"size": None}, "its mask: was drawn on frames of 80x40, but the file has 160x96"),
        ({"size": (160, 96), "picture": "missing.png"}, "its mask: was drawn on frames of 80x40, but"),
        ({"size": (2 * 10**9, 10**9), "picture": "missing.png"}, "a frame of 2000000000x1000000000; expected sides of"),
    ],
    ids=["as the file", "undeclared", "no file", "too large"],
)
def test_a_mask_of_coco_of_other_proportions_is_named(folder, changes, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*coco\.json: annotation 5: [^\n]*{message}[^\n]*$"):
        coco(folder, {"segmentation": {"size": [40, 80], "counts": [0, 40 * 80]}}, **changes)


def test_a_mask_of_the_brush_of_cvat_is_a_polyp_although_it_is_marked_as_a_crowd(folder, caplog):
    mask = {"bbox": [1, 0, 1, 96], "iscrowd": 1, "segmentation": {"size": [96, 160], "counts": [96, 96, 158 * 96]}}
    (item,) = coco(folder, mask, size=(160, 96))
    assert (item["box"], item["outline"]) == ([[]], [[{"label": 1, "mask": [1, 0, 1, 96, 0, 96]}]])
    assert "crowd" not in caplog.text
    datalist_from_coco({"a": folder / "coco.json"}, ["polyp"], folder / "list.json")
    assert "are left out; masks, which CVAT marks so, are read with `outlines=True`" in caplog.text


def test_a_crowd_is_no_polyp(folder, caplog):
    (item,) = coco(folder, {"bbox": [0, 0, 9, 9], "iscrowd": 1})
    assert item["box"] == [[]]
    assert "coco.json: 1 crowds (`iscrowd`) are no single polyps and are left out" in caplog.text


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": {"size": [96, 160], "counts": [5, 5]}}, "runs do not fill its 160x96 pixels"),
        ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, "beyond its frame"),
        ({"segmentation": {"size": [96, 160], "counts": [96 * 160 + 1, -1]}}, "runs do not fill"),
        ({"segmentation": {"size": [96, 160], "counts": "abc"}}, "a mask of compressed runs"),
        ({"segmentation": {"size": [96, 160]}}, "misses 'counts'"),
        ({"segmentation": [[1, 2, 3]]}, "a polygon that is not"),
        ({"bbox": [0, 0, float("nan"), 1]}, "a box needs four finite numbers"),
        ({"bbox": [10, 8, 0, 16]}, "inverted or has no area"),
        ({"bbox": [0.1, 0.2, 0.3, 0.3]}, "of shares of the frame; expected pixels"),
        ({"bbox": 7}, "not iterable"),
        ({"category_id": [1], "bbox": [0, 0, 1, 1]}, "unhashable"),
    ],
)
def test_a_bad_annotation_of_coco_is_named(folder, annotation, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*coco\.json: annotation 5: [^\n]*{message}[^\n]*$"):
        coco(folder, annotation)


def test_a_mask_is_scaled_pixel_by_pixel():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 4:8] = True
    half = scale_points("mask", mask_points(mask), (6, 8), (3, 4))
    assert mask_from_points(half, 3, 4).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    speck = np.zeros((6, 8), bool)
    speck[0, 0] = True
    with pytest.raises(ValueError, match="a mask of which no pixel is left at 2x1 instead of 8x6"):
        scale_points("mask", mask_points(speck), (6, 8), (1, 2))
