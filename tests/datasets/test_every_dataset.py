# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for each dataset, prepared from a miniature of its published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_exact_and_every_item_can_be_read(read, items_of, prepared, name):
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
def test_the_second_run_changes_nothing(content, prepared, script, name):
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


def test_an_archive_unpacked_in_a_folder_of_its_own(read, prepared, script, tmp_path):
    source, output, _ = prepared("kumc")
    shutil.copytree(source, tmp_path / "KUMC" / "archive")
    script("kumc/prepare.py").prepare(str(tmp_path / "KUMC"), str(tmp_path / "output"), workers=1)
    assert read(tmp_path / "output") == read(output)


def test_two_sources_of_the_same_name(prepared, script, write_image, tmp_path):
    source, _, _ = prepared("kvasir_seg")
    shutil.copytree(source, tmp_path / "source")
    write_image(tmp_path / "source" / "images" / "cju3.png")
    with pytest.raises(
        ValueError, match=r"images: holds both cju3\.jpg and cju3\.png|holds both cju3\.png and cju3\.jpg"
    ):
        script("kvasir_seg/prepare.py").prepare(str(tmp_path / "source"), str(tmp_path / "output"))


def test_a_mistake_ends_the_command_with_one_line(script, monkeypatch, tmp_path):
    module = script("kvasir_seg/prepare.py")
    monkeypatch.setattr("sys.argv", ["prepare.py", "--source", str(tmp_path / "absent"), "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: .*absent: is not an existing folder$"):
        module.run_from_command_line(module.prepare)
