# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from dataset_files import script, write_clip

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset


@pytest.fixture(scope="module")
def sets(tmp_path_factory: Any) -> dict[str, Any]:
    """A set for pre-training, and one whose test has a video of it and a copy of one."""
    root = tmp_path_factory.mktemp("sets")
    for seed in range(3):
        write_clip(root / "raw/pretraining" / f"{seed}.mp4", seed, 12)
    for seed in (10, 11):
        write_clip(root / "raw/downstream" / f"{seed}.mp4", seed, 12)
    shutil.copy(root / "raw/pretraining/0.mp4", root / "raw/downstream/12.mp4")
    write_clip(root / "raw/downstream/13.mp4", 1, 9, rate=25)
    for name in ("pretraining", "downstream"):
        paths = sorted((root / "raw" / name).iterdir())
        videos = [
            SourceVideo(path.stem, path, section="test" if int(path.stem) > 11 else "training", labels={"label": 1})
            for path in paths
        ]
        prepare_dataset(SourceDataset(name, "none"), videos, root / "raw" / name, root / name, workers=1, stats=False)
    return {"root": root, "lists": [str(root / name / "datalist.json") for name in ("pretraining", "downstream")]}


def test_planted_copies_are_found_and_shown(sets, tmp_path, capsys):
    module = script("check_leakage.py")
    page = tmp_path / "leakage.html"
    module.check_leakage(*sets["lists"], output=str(page), workers=1)
    assert "1 pairs of clips share files, 2 have frames that look alike" in capsys.readouterr().out
    text = page.read_text()
    assert "<td>downstream/test: 12.mp4</td><td>pretraining/training: 0.mp4</td><td>1</td>" in text
    assert "downstream/test: 13.mp4, frame" in text
    assert text.count("data:image/jpeg;base64,") == 4
    assert "10.mp4" not in text
    with pytest.raises(ValueError, match="1 pairs of clips share files"):
        module.check_leakage(*sets["lists"], output=str(page), workers=1, strict=True)


def test_sections_of_one_set_are_compared(sets, tmp_path, capsys):
    script("check_leakage.py").check_leakage(sets["lists"][1], output=str(tmp_path / "page.html"), workers=1)
    assert "0 pairs of clips share files, 0 have frames that look alike" in capsys.readouterr().out
    with pytest.raises(ValueError, match="need at least two sets or sections"):
        script("check_leakage.py").check_leakage(sets["lists"][0], output=str(tmp_path / "page.html"), workers=1)


def test_sets_in_folders_of_one_name_are_compared(tmp_path, capsys):
    lists = []
    for name, seeds in (("one", (0, 1)), ("other", (0, 2))):
        for seed in seeds:
            write_clip(tmp_path / name / "prepared" / f"{seed}.mp4", seed, 4)
        lists.append(tmp_path / name / "prepared" / "datalist.json")
        lists[-1].write_text(json.dumps({"training": [f"{seed}.mp4" for seed in seeds]}))
    page = tmp_path / "page.html"
    script("check_leakage.py").check_leakage(*map(str, lists), output=str(page), workers=1)
    assert "1 pairs of clips share files, 1 have frames that look alike" in capsys.readouterr().out
    assert f"<td>{lists[0]}/training: 0.mp4</td><td>{lists[1]}/training: 0.mp4</td><td>1</td>" in page.read_text()
