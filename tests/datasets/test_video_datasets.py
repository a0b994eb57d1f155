# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Datasets of videos."""

from __future__ import annotations

import shutil

import pytest


def test_polypdiag_takes_its_validation_from_training(read, items_of, prepared):
    _, output, _ = prepared("polypdiag")
    lists = items_of(output)
    assert {section: sorted(item["label"] for item in items) for section, items in lists.items()} == {
        "training": [0] * 4 + [1] * 4,
        "validation": [0, 1],
        "test": [0, 1],
    }
    published = read(output, "datalist_published.json")
    assert (len(published["training"]), published["validation"]) == (10, lists["test"])


def test_polypdiag_reports_a_video_in_both_lists(read, miniature, script, tmp_path):
    source = tmp_path / "source"
    miniature("polypdiag", source)
    shutil.copy(source / "videos" / "normal 2.mp4", source / "videos" / "normal 12.mp4")
    with pytest.raises(ValueError, match="1 problems"):
        script("polypdiag/prepare.py").prepare(str(source), str(tmp_path / "output"), workers=1, strict=True)
    problem = read(tmp_path / "output", "manifest.json")["problems"][0]
    assert problem == "test/normal_12 (test): is the same, byte for byte, as training/normal_2 (training)"


def test_colonoscopic_classes_are_recognized_and_long_videos_cut(items_of, prepared):
    _, output, _ = prepared("colonoscopic")
    items = items_of(output)["training"]
    assert [item["label"] for item in items] == [0, 0, 1, 1, 2]
    assert [item["image"].partition("#")[2] for item in items[:2]] == ["frames=0-149", "frames=150-329"]


def test_hyperkvasir_labels_are_findings(read, items_of, prepared):
    _, output, _ = prepared("hyperkvasir")
    assert read(output)["labels"] == {"0": "polyps", "1": "z-line"}
    assert [item.get("label") for item in items_of(output)["training"]] == [0, 1, None]


def test_ldpolypvideos_without_boxes(read, items_of, script, write_clip, tmp_path):
    for kind, name in (("without", "1_1"), ("with", "2_1"), ("with", "2_10")):
        write_clip(tmp_path / "source" / f"videos {kind} polyps" / f"{name}.avi", int(name[0]), 9)
    prepare = script("ldpolypvideo/prepare.py").prepare
    prepare(str(tmp_path / "source"), str(tmp_path / "out"), part="videos", workers=1, stats=False)
    assert [(item["video"], item["label"]) for item in items_of(tmp_path / "out")["training"]] == [
        ("videos_without_polyps/1_1", 0),
        ("videos_with_polyps/2_1", 1),
        ("videos_with_polyps/2_10", 1),
    ]
    assert read(tmp_path / "out", "manifest.json")["published"] == {"videos": 103, "frames": 861400}
    with pytest.raises(ValueError, match='part: expected "frames" or "videos", found "all"'):
        prepare(str(tmp_path / "source"), str(tmp_path / "out"), part="all")


def test_own_videos_do_not_tell_who_they_are_of(content, prepared):
    _, output, _ = prepared("own_videos")
    for name, data in content(output).items():
        if not name.startswith("private"):
            assert b"Doe" not in data
            assert "Doe" not in name
            assert b"Richard" not in data
    with open(output / "private/sources.csv", encoding="utf-8") as file:
        table = file.read()
    assert "ward 3/Doe_Jane_1960.mp4" in table


def test_own_videos_keep_their_numbers(items_of, prepared, script, tmp_path):
    source, _, _ = prepared("own_videos")
    shutil.copytree(source.parent, tmp_path / "copy")
    source, output = tmp_path / "copy" / "source", tmp_path / "copy" / "output"
    videos = [item["video"] for item in items_of(output)["training"]]
    shutil.copy(source / "broken.mp4", source / "a_new_one.mp4")
    script("own_videos/prepare.py").prepare(str(source), str(output), workers=1, stats=False)
    assert [item["video"] for item in items_of(output)["training"]] == videos
