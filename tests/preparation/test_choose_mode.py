# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_sets import make_scene, write_frames

from endofm_monai.data import load_datalist, open_clip
from endofm_monai.preparation import SourceDataset, SourceVideo, choose_mode, prepare_dataset

SLOW = {
    "apart.mp4": ({"options": {"g": "48"}}, "keyframes are up to 48 frames apart"),
    "order.avi": ({"options": {"g": "12"}}, "the file does not state the order of its frames"),
    "refresh.mp4": (
        {"options": {"x264-params": "keyint=16:intra-refresh=1:bframes=0"}},
        "its keyframes are no pictures of their own",
    ),
    "stream.m2v": (
        {"codec": "mpeg2video", "options": {"g": "12"}},
        "the file does not state the order of its frames",
    ),
}


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endofm_monai.preparation.index._MAX_KEYFRAME_DISTANCE", 24)


def write_video(path: Path, frames: int = 48, codec: str = "libx264", options: Any = None) -> Path:
    """Write a video of 48 frames as an encoder's options tell."""
    return write_frames(path, [make_scene(0, shift) for shift in range(frames)], rate=25, codec=codec, options=options)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_seekable_is_left_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", options={"g": "12"})
    assert choose_mode(SourceVideo("a", path)) == ("index", "seekable, a keyframe at least every 12 frames")


@pytest.mark.parametrize("name", SLOW)
def test_what_is_slow_to_seek_is_encoded(tmp_path: Path, name: str) -> None:
    options, reason = SLOW[name]
    path = write_video(tmp_path / name, **options)
    assert choose_mode(SourceVideo("a", path)) == ("encode", reason)
    labeled = SourceVideo("a", path, frame_labels={"finding": [None] * 48})
    assert choose_mode(labeled) == ("index", f"labels belong to single frames, although {reason}")


def test_a_container_without_index(tmp_path: Path, monkeypatch: Any) -> None:
    path = write_video(tmp_path / "a.mp4", options={"g": "12"})
    monkeypatch.setattr("endofm_monai.data.readers.container.PacketTable.position", lambda self, packet: None)
    assert choose_mode(SourceVideo("a", path)) == ("encode", "its container has no index to seek by")


def test_single_images(tmp_path: Path) -> None:
    assert choose_mode(SourceVideo("a", [tmp_path / "0.png"])) == ("index", "single images")


@pytest.fixture
def mixed(videos: Path, tmp_path: Path) -> Path:
    """A folder with a seekable video and one that is not."""
    (tmp_path / "in").mkdir()
    shutil.copy(videos / "0.mp4", tmp_path / "in" / "fast.mp4")
    write_video(tmp_path / "in" / "slow.mp4", frames=30, options={"g": "48"})
    return tmp_path / "in"


def prepare(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    sources = [SourceVideo(path.stem, path) for path in sorted(folder.iterdir())]
    prepare_dataset(SourceDataset("mixed", "none"), sources, folder, output, workers=1, stats=False, **options)
    return json.loads((output / "manifest.json").read_text())


def test_each_video_is_prepared_as_suits_it(mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "mixed"
    manifest = prepare(mixed, output, clip_seconds=1, short_side=32)
    assert manifest["totals"]["modes"] == {"encode": 1, "index": 1}
    assert [(entry["name"], entry["mode"], entry["reason"]) for entry in manifest["videos"]] == [
        ("fast", "index", "seekable, a keyframe at least every 10 frames"),
        ("slow", "encode", "keyframes are up to 30 frames apart"),
    ]
    items = load_datalist(output / manifest["dataset_dir"], output / "datalist.json")
    assert [Path(item["image"]).relative_to(tmp_path).as_posix() for item in items] == [
        "in/fast.mp4#frames=0-19",
        "in/fast.mp4#frames=20-39",
        "out/mixed/clips/slow.mp4",
    ]
    heights = []
    for item in items:
        with open_clip(item["image"]) as reader:
            heights.append(reader.probe().height)
    assert heights == [72, 72, 32]
    assert prepare(mixed, output, clip_seconds=1, short_side=32) == manifest
    prepare(mixed, output, verify=True)


@pytest.mark.parametrize("mode", ["index", "encode"])
def test_the_choice_can_be_overridden(mixed: Path, tmp_path: Path, mode: str) -> None:
    manifest = prepare(mixed, tmp_path / "out", mode=mode)
    assert [(entry["mode"], entry["reason"]) for entry in manifest["videos"]] == [(mode, "as asked for")] * 2
