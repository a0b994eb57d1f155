# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

import endofm_monai  # noqa: F401 (registers the short names)
from endofm_monai.data import load_datalist


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    for name in ("a/1.mp4", "a/2.mp4", "frames/1.png", "frames/2.png", "mask.png", "secret/../b.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "outside.mp4").touch()
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_list(items: Any, section: str = "training") -> Path:
        path = tmp_path / "datalist.json"
        path.write_text(json.dumps({section: items}))
        return path

    return write_list


def test_without_a_list_every_clip_counts(dataset: Path) -> None:
    (dataset / "mask.png").unlink()
    names = [Path(item["image"]).relative_to(dataset.resolve()).as_posix() for item in load_datalist(dataset)]
    assert names == ["a/1.mp4", "a/2.mp4", "b.mp4", "frames"]


def test_items_keep_what_they_hold_and_their_paths_become_absolute(dataset: Path, write: Any) -> None:
    items = [
        {"image": "a/1.mp4", "label": 1, "box": [[0, 0, 3, 4]]},
        {"image": ["frames/1.png", "frames/2.png"], "label": ["mask.png", "mask.png"]},
        {"image": str(dataset / "frames"), "label": "mask.png"},
        "a/./2.mp4",
    ]
    root = dataset.resolve()
    assert load_datalist(dataset, write(items, "validation"), section="validation") == [
        {"image": f"{root}/a/1.mp4", "label": 1, "box": [[0, 0, 3, 4]]},
        {"image": [f"{root}/frames/1.png", f"{root}/frames/2.png"], "label": [f"{root}/mask.png"] * 2},
        {"image": f"{root}/frames", "label": f"{root}/mask.png"},
        {"image": f"{root}/a/2.mp4"},
    ]


def test_one_call_from_a_config(dataset: Path, write: Any) -> None:
    config = {
        "_target_": "load_datalist",
        "dataset_dir": str(dataset),
        "datalist": str(write(["b.mp4"], "test")),
        "section": "test",
    }
    assert ConfigParser({"data": config}).get_parsed_content("data") == [{"image": str(dataset.resolve() / "b.mp4")}]


def test_folder_without_clips(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/none: `dataset_dir` is not an existing folder"):
        load_datalist(tmp_path / "none")
    with pytest.raises(ValueError, match=f"^{tmp_path}: holds no video, DICOM or NIfTI file, and no folder"):
        load_datalist(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"training": [', r"is not valid JSON \(.*line 1"),
        ("\xff", "is not valid JSON"),
        ("[]", "needs the list `training`, found a list"),
        ('{"test": [], "name": ""}', r"needs the list `training`, found keys \['name', 'test'\]"),
        ('{"training": {}}', "needs the list `training`, found keys"),
        ('{"training": []}', "the list `training` is empty"),
    ],
)
def test_malformed_list(dataset: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"^{path}: {message}.*$"):
        load_datalist(dataset, path)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_datalist(dataset, tmp_path / "none.json")


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({"label": 1}, ValueError, "needs `image`, a path or a list of paths, found {'label': 1}"),
        ({"image": ""}, ValueError, "needs `image`"),
        ({"image": []}, ValueError, "needs `image`"),
        ({"image": ["frames/1.png", 7]}, ValueError, "needs `image`"),
        (7, ValueError, "needs `image`, a path or a list of paths, found 7"),
        ({"image": "a/3.mp4"}, FileNotFoundError, "image: .*/dataset/a/3.mp4 does not exist"),
        ({"image": ["frames/1.png", "frames/3.png"]}, FileNotFoundError, "image: .*/frames/3.png does not exist"),
        ({"image": "a/2.mp4", "label": "none.png"}, FileNotFoundError, "label: .*/none.png does not exist"),
        ({"image": "../outside.mp4"}, ValueError, "image: ../outside.mp4 lies outside the dataset's folder"),
        ({"image": "link.mp4"}, ValueError, "image: link.mp4 lies outside"),
        ({"image": "up/outside.mp4"}, ValueError, "image: up/outside.mp4 lies outside"),
        ({"image": "a/2.mp4", "label": ["../outside.mp4"]}, ValueError, "label: ../outside.mp4 lies outside"),
        ({"image": "a/../a/1.mp4"}, ValueError, r"lists the same image as training\[0\]: .*/a/1.mp4"),
    ],
    ids=str,
)
def test_bad_item_is_named(dataset: Path, write: Any, item: Any, error: type[Exception], message: str) -> None:
    (dataset / "link.mp4").symlink_to(dataset.parent / "outside.mp4")
    (dataset / "up").symlink_to(dataset.parent)
    path = write([{"image": "a/1.mp4"}, item])
    with pytest.raises(error, match=rf"^{path}: training\[1\] {message}") as raised:
        load_datalist(dataset, path)
    assert "\n" not in str(raised.value)


def test_folder_whose_name_begins_like_the_dataset_is_outside(dataset: Path, write: Any) -> None:
    other = dataset.parent / "dataset2"
    other.mkdir()
    (other / "1.mp4").touch()
    with pytest.raises(ValueError, match="lies outside"):
        load_datalist(dataset, write(["../dataset2/1.mp4"]))


def test_the_root_of_all_files_holds_every_file(dataset: Path, write: Any) -> None:
    root = dataset.resolve().anchor
    (item,) = load_datalist(root, write([{"image": str(dataset / "a/1.mp4")}]))
    assert item["image"] == str((dataset / "a/1.mp4").resolve())


def test_thousands_of_clips_take_a_moment(tmp_path: Path, write: Any) -> None:
    names = [f"{number}.mp4" for number in range(3_300)]
    for name in names:
        (tmp_path / name).touch()
    start = time.process_time()
    assert len(load_datalist(tmp_path, write(names))) == 3_300
    assert time.process_time() - start < 2  # a tenth of the published pre-training: about 0.1 s
