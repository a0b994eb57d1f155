# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil

import pytest
from dataset_files import items_of, prepare_set, read
from small_sets import content


def test_own_videos_do_not_tell_who_they_are_of(prepared):
    _, output, _ = prepared("own_videos")
    for name, data in content(output).items():
        if not name.startswith("private"):
            assert b"Doe" not in data
            assert "Doe" not in name
            assert b"Richard" not in data
    with open(output / "private/sources.csv", encoding="utf-8") as file:
        table = file.read()
    assert "ward 3/Doe_Jane_1960.mp4" in table


def test_own_videos_keep_their_numbers(prepared, tmp_path):
    source, _, _ = prepared("own_videos")
    shutil.copytree(source.parent, tmp_path / "copy")
    source, output = tmp_path / "copy" / "source", tmp_path / "copy" / "output"
    videos = [item["video"] for item in items_of(output)["training"]]
    shutil.copy(source / "broken.mp4", source / "a_new_one.mp4")
    prepare_set("own_videos", source, output)
    assert [item["video"] for item in items_of(output)["training"]] == videos


@pytest.mark.parametrize("mode", ["encode", "index"])
def test_own_videos_are_not_what_an_earlier_run_made_of_them(prepared, tmp_path, mode):
    source, _, totals = prepared("own_videos")
    shutil.copytree(source, tmp_path / "source")
    source = tmp_path / "source"
    prepare_set("own_videos", source, source / "out" / "first", mode=mode, stats=True)  # pictures are no videos
    prepare_set("own_videos", source, source / "out" / "second", mode="index")
    found = read(source / "out" / "second", "manifest.json")
    assert {key: found["totals"][key] for key in totals} == totals
    assert len(found["problems"]) == 1


@pytest.mark.parametrize(("old", "new"), [(",", ";"), ("1,", "one,")])
def test_a_table_of_own_videos_that_was_changed_is_named(prepared, tmp_path, old, new):
    source, output, _ = prepared("own_videos")
    table = tmp_path / "output" / "private" / "sources.csv"
    table.parent.mkdir(parents=True)
    table.write_text((output / "private/sources.csv").read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sources\.csv: expected number,source with whole numbers"):
        prepare_set("own_videos", source, tmp_path / "output")


def test_a_number_of_own_videos_whose_row_was_deleted_is_not_given_to_another(prepared, tmp_path):
    source, output, totals = prepared("own_videos")
    shutil.copytree(source.parent, tmp_path / "copy")
    source, output = tmp_path / "copy" / "source", tmp_path / "copy" / "output"
    table = output / "private" / "sources.csv"
    head, _, *rows = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    prepare_set("own_videos", source, output)
    assert read(output, "manifest.json")["totals"]["videos"] == totals["videos"]
    assert table.read_text(encoding="utf-8").splitlines()[-1].startswith(f"{len(rows) + 2},")
