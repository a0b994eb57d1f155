# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What is made of a set of videos, and what becomes of those that cannot be used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import make_scene, prepare, write_frames

from endofm_monai.data import VideoReader, load_datalist
from endofm_monai.preparation import SourceDataset, SourceVideo, claim_settings, prepare_dataset


def test_the_manifest_tells_what_there_is(videos, tmp_path):
    manifest = prepare(videos, tmp_path / "out", clip_seconds=1)
    assert manifest["totals"] == {
        "videos": 6,
        "clips": 12,
        "frames": 240,
        "seconds": 12.0,
        "modes": {"index": 6},
        "sections": {"training": 12},
    }
    assert manifest["published"] == {"videos": 6, "frames": 240}
    assert {"python", "av", "endofm-monai"} <= set(manifest["versions"])
    entry = manifest["videos"][1]
    assert (entry["frames"], entry["fps"], entry["height"], entry["width"], entry["duration"]) == (
        40,
        20.0,
        72,
        96,
        2.0,
    )
    assert (entry["mode"], entry["reason"]) == ("index", "seekable, a keyframe at least every 10 frames")
    assert entry["source"] == ["1.mp4"]
    assert len(entry["sha256"]) == 64
    assert [clip["item"] for clip in entry["clips"]] == [
        {"image": "1.mp4#frames=0-19", "label": 1, "video": "1"},
        {"image": "1.mp4#frames=20-39", "label": 1, "video": "1"},
    ]
    items = load_datalist(tmp_path / "out" / manifest["dataset_dir"], tmp_path / "out" / "datalist.json")
    assert len(items) == 12


@pytest.mark.parametrize("mode", ["index", "encode"])
def test_broken_videos_are_listed_and_left_out(videos, tmp_path, mode):
    folder = tmp_path / "in"
    shutil.copytree(videos, folder)
    (folder / "1.mp4").write_bytes(b"no video")
    whole = (folder / "4.mp4").read_bytes()
    (folder / "4.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    manifest = prepare(folder, tmp_path / "out", mode=mode)
    assert [entry["name"] for entry in manifest["videos"]] == ["0", "2", "3", "5"]
    assert [Path(problem.split(":")[0]).name for problem in manifest["problems"]] == ["1.mp4", "4.mp4"]
    with pytest.raises(ValueError, match="2 problems"):
        prepare(folder, tmp_path / "out", mode=mode, strict=True)
    shutil.copy(videos / "1.mp4", folder / "1.mp4")
    assert len(prepare(folder, tmp_path / "out", mode=mode)["videos"]) == 5


def test_a_frame_of_another_size_and_a_missing_one(tmp_path):
    for number in range(3):
        Image.new("RGB", (40 + (number == 2), 30), (number, 90, 90)).save(tmp_path / f"{number}.png")
    frames = [tmp_path / f"{number}.png" for number in range(4)]
    good = SourceVideo("good", frames[:2])
    videos = [good, SourceVideo("odd", frames[:3]), SourceVideo("missing", [*frames[:2], frames[3]])]
    prepare_dataset(SourceDataset("test set", "none"), videos, tmp_path, tmp_path / "out", workers=1, stats=False)
    problems = json.loads((tmp_path / "out/manifest.json").read_text())["problems"]
    assert re.search(r"2\.png: has 41x30 pixels \(width x height\), but .*1\.png 40x30; those of one size", problems[0])
    assert "3.png: is missing (1 of 3 files are)" in problems[1]


def test_two_videos_of_the_same_name(videos, tmp_path):
    twice = [SourceVideo("a", videos / "0.mp4"), SourceVideo("a", videos / "1.mp4")]
    with pytest.raises(ValueError, match=r"1\.mp4: has the same name as .*0\.mp4: a"):
        prepare_dataset(SourceDataset("test set", "none"), twice, videos, tmp_path / "out")


def test_clips_of_two_videos_do_not_replace_each_other(videos, tmp_path):
    write_frames(tmp_path / "whole.mp4", [make_scene(1, 0)] * 20, rate=20)
    both = [SourceVideo("a", videos / "0.mp4"), SourceVideo("a_00001", tmp_path / "whole.mp4")]
    dataset = SourceDataset("test set", "none", mode="encode", clip_seconds=1)
    with pytest.raises(ValueError, match=r"clips/a_00001\.mp4: is a clip of a and one of a_00001, which replaced each"):
        prepare_dataset(dataset, both, videos, tmp_path / "out", workers=1, stats=False)


def test_nothing_that_can_be_used(tmp_path):
    (tmp_path / "0.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"no video could be used: .*0\.mp4: is not a readable video"):
        prepare(tmp_path, tmp_path / "out")


def test_other_settings_are_not_mixed_in(videos, tmp_path):
    prepare(videos, tmp_path / "out", clip_seconds=1)
    with pytest.raises(ValueError, match=r"was made with {'clip_seconds': 1}, not {'clip_seconds': 2}"):
        prepare(videos, tmp_path / "out", clip_seconds=2)


def test_a_setting_of_another_version_is_named(tmp_path):
    claim_settings(tmp_path / "settings.json", {"seed": 0, "former": 1})
    with pytest.raises(ValueError, match=r"was made with {'former': 1}, not {'former': None}"):
        claim_settings(tmp_path / "settings.json", {"seed": 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cut"}, "mode: expected one of auto, index, copy, encode, found cut"),
        ({"clip_seconds": 0}, "clip_seconds: expected a positive number"),
        ({"mode": "encode", "crf": 60}, "crf: expected a whole number from 0 to 51, found 60"),
        ({"mode": "encode", "crf": "x"}, "crf: expected a whole number"),
        ({"mode": "encode", "fps": "x"}, "fps: expected a positive number"),
        ({"mode": "encode", "fps": 1e9}, "fps: expected a positive number up to 100,000 or None, found 1000000000.0"),
        ({"mode": "encode", "blank": 3}, "blank: expected x1,y1,x2,y2 as fractions"),
        ({"mode": "index", "fps": 10, "crf": 20}, "fps, crf: need mode=encode, found mode=index"),
        ({"mode": "encode", "blank": (0, 0, 2, 1)}, "blank: expected x1,y1,x2,y2 as fractions"),
        ({"border": "crop"}, "border: need mode=encode"),
        ({"remainder": "absorb"}, "remainder: expected one of"),
        ({"clipseconds": 5}, "clipseconds: no such option"),
    ],
)
def test_bad_settings_are_named(videos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(videos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_pictures_show_the_set(videos, tmp_path):
    prepare(videos, tmp_path, stats=True, clip_seconds=1)
    assert np.asarray(Image.open(tmp_path / "contact_sheet.png")).shape == (2 * 96, 10 * 96, 3)
    assert np.asarray(Image.open(tmp_path / "stats.png")).std() > 20


def test_an_index_reads_three_frames_a_video(videos, tmp_path, monkeypatch):
    frames = []
    read = VideoReader.read
    monkeypatch.setattr(VideoReader, "read", lambda self, indices: frames.extend(indices) or read(self, indices))
    prepare(videos, tmp_path)
    assert frames == [0, 20, 39] * 6
