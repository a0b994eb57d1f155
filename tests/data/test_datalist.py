# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

import endofm_monai  # noqa: F401 (registers the short names)
from endofm_monai.data import list_videos, load_datalist, name_clips, open_clip, result_path
from endofm_monai.utils import write_json


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


def test_folders_of_masks_that_count_as_clips_are_told_of(tmp_path, caplog):
    for name in ("Frame/case1/1.png", "GT/case1/1.png", "Ground Truth/1.png", "labeled/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert len(load_datalist(tmp_path)) == 4
    (message,) = caplog.messages
    assert f"2 clips are in folders named as of masks, as {tmp_path}/Ground Truth; they count as clips, too" in message


def test_a_list_that_is_not_used_is_told_of(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_datalist(dataset)
    assert "datalist" not in caplog.text
    write_json(dataset / "datalist.json", {"training": ["a/1.mp4"]})
    load_datalist(dataset)
    assert f"masks too; to take those of the dataset alone, set `datalist` to {dataset.resolve()}" in caplog.text


@pytest.mark.parametrize(
    ("item", "shared"),
    [
        ({"image": "a/1.mp4"}, True),
        ("a/1.mp4", True),
        ("./a/1.mp4#frames=5-9", True),
        (["frames/1.png", "frames/2.png"], True),
        ({"image": "b.mp4", "video": "first"}, True),
        ({"image": "b.mp4", "group": 7}, True),
        ({"image": "b.mp4", "group": ""}, False),
        ({"image": "b.mp4", "group": 8}, False),
    ],
)
def test_what_training_has_too_is_told_of(dataset: Path, tmp_path: Path, caplog: Any, item: Any, shared: bool) -> None:
    training = [
        {"image": "a/1.mp4#frames=0-4", "group": "7", "video": "first"},
        {"image": ["frames/2.png"], "group": ""},
    ]
    write_json(tmp_path / "list.json", {"training": training, "validation": [item, "a/2.mp4"]})
    load_datalist(dataset, tmp_path / "list.json", "validation")
    assert ("list.json: 1 of 2 items of `validation` are in `training` too" in caplog.text) == shared


def test_items_keep_what_they_hold_and_their_paths_become_absolute(dataset: Path, write: Any) -> None:
    items = [
        {"image": "a/1.mp4", "label": 1, "box": [[0, 0, 3, 4]]},
        {"image": ["frames/1.png", "frames/2.png"], "label": ["mask.png", "mask.png"]},
        {"image": str(dataset / "frames"), "label": "mask.png"},
        "a/./2.mp4",
    ]
    root = dataset.resolve()
    loaded = load_datalist(dataset, write(items, "validation"), section="validation")
    names = ["a/1", "frames/1-2", "frames", "a/2"]
    assert loaded == [
        {"name": name, "video": name, **item}
        for name, item in zip(
            names,
            [
                {"image": f"{root}/a/1.mp4", "label": 1, "box": [[0, 0, 3, 4]]},
                {"image": [f"{root}/frames/1.png", f"{root}/frames/2.png"], "label": [f"{root}/mask.png"] * 2},
                {"image": f"{root}/frames", "label": f"{root}/mask.png"},
                {"image": f"{root}/a/2.mp4"},
            ],
            strict=True,
        )
    ]


def test_one_call_from_a_config(dataset: Path, write: Any) -> None:
    config = {
        "_target_": "load_datalist",
        "dataset_dir": str(dataset),
        "datalist": str(write(["b.mp4"], "test")),
        "section": "test",
    }
    (item,) = ConfigParser({"data": config}).get_parsed_content("data")
    assert item == {"image": str(dataset.resolve() / "b.mp4"), "name": "b", "video": "b"}


def test_folder_without_clips(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/none: `dataset_dir` is not an existing folder"):
        load_datalist(tmp_path / "none")
    with pytest.raises(ValueError, match=f"^{tmp_path}: holds no video, DICOM or NIfTI file, and no folder"):
        load_datalist(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"training": [', r"is not valid JSON \(.*line 1"),
        ("\xff", "must be text in UTF-8, but byte 0 is 0xff"),
        ("[]", "needs the list `training`, found a list"),
        (
            '{"test": [], "name": ""}',
            r"needs the list `training`, found keys \['name', 'test'\]; `section` names another",
        ),
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
        ({"label": 1}, ValueError, r"needs `image`, a path or a list of paths, found keys \['label'\]"),
        ({"image": ""}, ValueError, "needs `image`"),
        ({"image": []}, ValueError, "needs `image`"),
        ({"image": ["frames/1.png", 7]}, ValueError, "needs `image`"),
        ({"image": {"frames/1.png": 1}}, ValueError, "needs `image`, .*, found {'frames/1.png': 1}"),
        (7, ValueError, "needs `image`, a path or a list of paths, found 7"),
        ({"image": "a/3.mp4"}, FileNotFoundError, "image: .*/dataset/a/3.mp4 does not exist"),
        ({"image": ["frames/1.png", "frames/3.png"]}, FileNotFoundError, "image: .*/frames/3.png does not exist"),
        ({"image": "a/2.mp4", "label": "none.png"}, FileNotFoundError, "label: .*/none.png does not exist"),
        ({"image": "../outside.mp4"}, ValueError, "image: ../outside.mp4 lies outside the dataset's folder"),
        ({"image": "link.mp4"}, ValueError, "image: link.mp4 lies outside"),
        ({"image": "up/outside.mp4"}, ValueError, "image: up/outside.mp4 lies outside"),
        ({"image": "a/2.mp4", "label": ["../outside.mp4"]}, ValueError, "label: ../outside.mp4 lies outside"),
        ({"image": "a\0.mp4"}, FileNotFoundError, "image: .*does not exist"),
        ({"image": "a/2.mp4", "video": "../b"}, ValueError, "video: results of '../b' would be written outside"),
        ({"image": "a/2.mp4", "video": "/b"}, ValueError, "video: .*would be written outside"),
        ({"image": "a/2.mp4", "video": "b/../../c"}, ValueError, "video: .*would be written outside"),
        ({"image": "a/2.mp4", "video": "b\0"}, ValueError, "video: .*under no name that a file can have"),
        ({"image": "a/2.mp4", "video": "b\ud800"}, ValueError, "video: .*under no name that a file can have"),
        ({"image": "a/2.mp4", "video": ""}, ValueError, "video: .*under no name that a file can have"),
        ({"image": "a/2.mp4", "video": "b" * 300}, ValueError, "video: .*parts have 1 to 200 bytes"),
        ({"image": "a/2.mp4", "video": 7}, ValueError, "video: .*under no name that a file can have"),
        ({"image": "a/2.mp4", "weight": None}, ValueError, "weight: expected a positive number, found None"),
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


def test_a_name_with_a_line_feed_is_told_in_one_line(dataset: Path, write: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"/a\\n\.mp4' does not exist\.$"):
        load_datalist(dataset, write(["a\n.mp4"]))


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


def names_of(clips):
    return [item["name"] for item in name_clips([{"image": clip} for clip in clips], "/data")]


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("/data/sub/clip.mp4", "sub/clip"),
        ("/data/sub/clip.mp4#frames=10-19", "sub/clip_10-19"),
        ("/data/scan.nii.gz", "scan"),
        ("/data/seq.1", "seq.1"),
        ("/data", "data"),
        (["/data/a/1.png"], "a/1"),
        (["/data/a/1.png", "/data/a/2.png"], "a/1-2"),
        (["/data/1.png", "/data/2.png"], "1-2"),
        ("/other/clip.mp4", "other/clip"),
    ],
)
def test_names_are_paths_without_suffix(clip, name):
    assert names_of([clip]) == [name]


def test_no_two_clips_have_the_same_name():
    frames = ["/data/b/1.png", "/data/b/2.png", "/data/b/3.png"]
    clips = ["/data/a.mp4", "/data/a.avi", "/data/a_2.mp4", "/data/a.mp4#frames=0-9", frames, frames[::2], frames[0]]
    assert names_of(clips) == ["a", "a_2", "a_2_2", "a_0-9", "b/1-3", "b/1-3_2", "b/1"]


def test_no_two_clips_have_names_that_are_one_file_on_the_disks_of_windows_and_macos():
    clips = ["/data/a.mp4", "/data/A.mp4", "/data/K\xf6ln.mp4", "/data/Ko\u0308ln.mp4", "/data/Settings.mp4"]
    assert names_of(clips) == ["a", "A_2", "K\xf6ln", "Ko\u0308ln_2", "Settings_2"]


def test_no_result_replaces_another_file_of_a_run():
    clips = ["/data/settings.mp4", "/data/a.mp4", "/data/a/masks.mp4", "/data/a/detections.mp4", "/data/b/masks.mp4"]
    assert names_of(clips) == ["settings_2", "a", "a/masks_2", "a/detections_2", "b/masks"]
    # the masks of `a` take the place of the whole folder
    assert names_of(["/data/A/masks/b.mp4", "/data/a.mp4", "/data/a/masks_2"]) == ["A/masks_2/b", "a", "a/masks_2"]


def test_items_keep_their_video_and_get_a_name():
    first, second, third = name_clips(
        [
            {"image": "/data/a.mp4#frames=0-9", "video": "a"},
            {"image": "/data/a.mp4#frames=10-19", "video": "a"},
            {"image": "/data/b.mp4"},
        ],
        "/data",
    )
    assert (first["name"], first["video"]) == ("a_0-9", "a")
    assert (second["name"], second["video"]) == ("a_10-19", "a")
    assert (third["name"], third["video"]) == ("b", "b")


@pytest.fixture
def frames_folder(tmp_path):
    """Two clips of frames whose pixels are their number, of 20 and 3 frames, and a broken one."""
    for name, frames in (("long", 20), ("sub/short", 3), ("torn", 2)):
        (tmp_path / name).mkdir(parents=True)
        for number in range(frames):
            Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / name / f"{number:02d}.png")
    (tmp_path / "torn" / "00.png").write_bytes(b"no image")
    return tmp_path


def test_single_images(frames_folder):
    names = [item["name"] for item in list_videos(frames_folder, single_images=True)]
    assert len(names) == 25
    assert names[0] == "long/00"
    for number in (10, 2, 1):
        Image.new("RGB", (6, 4)).save(frames_folder / "sub" / f"f{number}.png")
    names = [item["name"] for item in list_videos(frames_folder / "sub", single_images=True)]
    assert names == ["f1", "f2", "f10", "short/00", "short/01", "short/02"]
    (frames_folder / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_videos(frames_folder / "empty", single_images=True)


def test_long_videos_are_listed_in_parts(frames_folder):
    """Of 8 frames at 30 a second; what cannot be read is left to who reads it."""
    found = {item["name"]: item for item in list_videos(frames_folder, part_minutes=8 / 30 / 60)}
    assert found.keys() == {"long_0-7", "long_8-15", "long_16-19", "sub/short", "torn"}
    assert {item["video"] for item in found.values()} == {"long", "sub/short", "torn"}
    with open_clip(found["long_16-19"]["image"]) as reader:
        assert reader.read([0, 3])[0, :, 0, 0].tolist() == [16, 19]
    write_json(frames_folder / "list.json", {"test": ["long#frames=0-11", ["long/00.png", "long/01.png"]]})
    listed = list_videos(frames_folder, frames_folder / "list.json", part_minutes=1 / 30 / 60)
    assert [item["name"] for item in listed] == ["long_0-11", "long/00-01"]  # as they are
    (part,) = list_videos(f"{frames_folder / 'long'}#frames=3-5")
    with open_clip(part["image"]) as reader:
        assert (part["name"], reader.read(range(3))[0, :, 0, 0].tolist()) == ("long_3-5", [3, 4, 5])
    with pytest.raises(ValueError, match="`part_minutes` must be positive, but got 0"):
        list_videos(frames_folder, part_minutes=0)


def test_videos_with_a_good_result_are_done(frames_folder, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for video, status in (("long", "ok"), ("torn", "unreadable")):
        result_path(results, video).write_text(json.dumps({"status": status}))
    left = {item["name"] for item in list_videos(frames_folder, results_dir=results)}
    assert left == {"sub/short", "torn"}


def test_results_are_no_videos(frames_folder):
    with pytest.raises(ValueError, match=r"sub/out: results lie in `dataset_dir`, .* would be taken for videos"):
        list_videos(frames_folder, results_dir=frames_folder / "sub" / "out")
    write_json(frames_folder / "list.json", {"test": ["long"]})
    (listed,) = list_videos(frames_folder, frames_folder / "list.json", results_dir=frames_folder / "out")
    assert listed["name"] == "long"


def test_frames_of_one_folder_have_names_of_their_own(frames_folder):
    datalist = frames_folder / "datalist.json"
    lists = [["long/00.png", "long/01.png"], ["long/02.png"], ["long/00.png"]]
    clips = [*({"image": frames} for frames in lists), {"image": "long", "video": "x"}]
    datalist.write_text(json.dumps({"test": clips}))
    videos = list_videos(frames_folder, datalist)
    assert [item["name"] for item in videos] == ["long/00-01", "long/02", "long/00", "long"]
    assert videos[-1]["video"] == "x"


def test_every_file_gets_a_name_for_its_results(tmp_path: Path) -> None:
    files = [os.fsdecode(b"K\xf6ln.mp4"), "x" * 251 + ".mp4", "x" * 250 + ".mp4"]
    items = name_clips([{"image": str(tmp_path / file)} for file in files], tmp_path)
    assert [item["name"] for item in items] == [os.fsdecode(b"K\xf6ln"), "x" * 200, "x" * 200 + "_2"]
    for item in items:
        write_json(result_path(tmp_path / "out", item["name"]), {"status": "ok"})
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_no_group_is_not_a_group_of_its_own(dataset: Path, write: Any) -> None:
    items = [{"image": "a/1.mp4", "group": None}, {"image": "a/2.mp4", "group": ""}, {"image": "b.mp4", "group": 0}]
    assert [item.get("group", "none") for item in load_datalist(dataset, write(items))] == ["none", "none", "0"]


def test_names_of_a_list_are_found_however_the_disk_spells_them(tmp_path: Path) -> None:
    (tmp_path / "Ko\u0308ln").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "Ko\u0308ln" / "gru\u0308n.png")
    listed = ["K\xf6ln/gr\xfcn.png", "K\xf6ln#frames=0-0"]
    (tmp_path / "list.json").write_text(json.dumps({"training": listed}))
    images = [item["image"] for item in load_datalist(tmp_path, tmp_path / "list.json")]
    assert images == [f"{tmp_path}/Ko\u0308ln/gru\u0308n.png", f"{tmp_path}/Ko\u0308ln#frames=0-0"]
    (tmp_path / "list.json").write_text(json.dumps({"training": ["K\xf6ln/rot.png"]}))
    with pytest.raises(FileNotFoundError, match=r"rot\.png does not exist"):
        load_datalist(tmp_path, tmp_path / "list.json")
