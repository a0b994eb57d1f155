# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import fire
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "cross_validate.py"


@pytest.fixture(scope="module")
def cross_validate():
    spec = importlib.util.spec_from_file_location("cross_validate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cross_validate


def save(path: Path, signal: float, dims: int) -> None:
    """Clips of 12 sequences: each has an offset of its own, and the class is in a part that may be empty."""
    random = np.random.default_rng(0)
    sequence = np.repeat(np.arange(12), 4)
    labels = sequence % 2
    embeddings = random.standard_normal((12, dims))[sequence] + 0.1 * random.standard_normal((48, dims))
    embeddings[:, 0] += signal * labels
    paths = [f"data/seq{number:02d}/{index}.mp4" for index, number in enumerate(sequence)]
    np.savez(path, embeddings=embeddings, labels=labels, paths=paths)


def test_a_class_that_is_there_is_found_in_unseen_sequences(cross_validate, tmp_path):
    save(tmp_path / "e.npz", signal=20, dims=2)
    result = cross_validate(str(tmp_path / "e.npz"), group=r"seq(\d+)")
    assert result["data"] == {"clips": 48, "groups": 12, "clips_by_class": [24, 24]}
    assert result["f1"]["value"] == 1.0


def test_knowing_a_sequence_does_not_help(cross_validate, tmp_path):
    """Without the class in the embeddings, only clips of the same sequence could tell it."""
    save(tmp_path / "e.npz", signal=0, dims=40)
    by_sequence = cross_validate(str(tmp_path / "e.npz"), group=r"seq(\d+)")["accuracy"]["value"]
    by_clip = cross_validate(str(tmp_path / "e.npz"))["accuracy"]["value"]
    assert by_clip > 0.95
    assert by_sequence < 0.75


def test_parts_of_a_video_are_of_one_group(cross_validate, tmp_path):
    save(tmp_path / "e.npz", signal=0, dims=40)
    content = dict(np.load(tmp_path / "e.npz"))
    content["paths"] = [f"{Path(path).parent}.mp4#frames={n}-{n + 9}" for n, path in enumerate(content["paths"])]
    np.savez(tmp_path / "parts.npz", **content)
    assert cross_validate(str(tmp_path / "parts.npz"))["data"]["groups"] == 12


def test_what_cannot_be_validated_is_named(cross_validate, tmp_path):
    save(tmp_path / "e.npz", signal=0, dims=2)
    for group, message in {
        r"seq\d+": "`group` must hold parentheses around what names a group, found 'seq",
        "(": "`group` must be a regular expression, found '('",
        "(x)?": "The expression '(x)?' finds no group in data/seq00/0.mp4",
        "(data)": "e.npz: clips of two classes are needed beside those of each group, as 'data'",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            cross_validate(str(tmp_path / "e.npz"), group=group)
    with pytest.raises(ValueError, match="nothing to judge"):
        cross_validate()
    content = dict(np.load(tmp_path / "e.npz"))
    np.savez(tmp_path / "e.npz", **{**content, "labels": content["labels"] + 1})
    with pytest.raises(ValueError, match=r"e\.npz: no clip is of class 0"):
        cross_validate(str(tmp_path / "e.npz"), group=r"seq(\d+)")


def test_clips_without_group_or_label_are_named(cross_validate, tmp_path):
    save(tmp_path / "e.npz", signal=1, dims=2)
    with pytest.raises(ValueError, match=r"finds no group in data/seq00/0\.mp4"):
        cross_validate(str(tmp_path / "e.npz"), group=r"patient(\d+)")
    np.savez(tmp_path / "u.npz", embeddings=np.zeros((1, 8)), labels=[-1], paths=["u.mp4"])
    with pytest.raises(ValueError, match=r"u\.npz: u\.mp4 has no class index as label"):
        cross_validate(str(tmp_path / "u.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "must be an `.npz` file with embeddings, labels, paths"),
        ({"labels": None}, "must be an `.npz` file with embeddings, labels, paths"),
        ({"labels": np.zeros((48, 2), int)}, "N class indices and N texts, found"),
        ({"labels": np.zeros(48)}, "N class indices and N texts, found"),
        ({"embeddings": np.zeros((0, 2)), "labels": np.zeros(0, int), "paths": np.zeros(0, str)}, "found"),
        ({"embeddings": np.full((48, 2), np.nan)}, "holds embeddings that are not finite"),
        ({"embeddings": np.zeros((48, 3))}, "its embeddings are of another width than those of"),
    ],
    ids=["no archive", "no labels", "several labels", "no indices", "empty", "not finite", "another width"],
)
def test_files_that_hold_no_labeled_embeddings_are_named(cross_validate, tmp_path, change, message):
    save(tmp_path / "e.npz", signal=1, dims=2)
    content = {**np.load(tmp_path / "e.npz"), **(change or {})}
    np.savez(tmp_path / "wrong.npz", **{key: value for key, value in content.items() if value is not None})
    if change is None:
        (tmp_path / "wrong.npz").write_text("nothing")
    with pytest.raises(ValueError, match=f"wrong.npz: .*{message}"):
        cross_validate(str(tmp_path / "e.npz"), str(tmp_path / "wrong.npz"), group=r"seq(\d+)")


def test_a_group_is_taken_as_it_is_typed(cross_validate, tmp_path):
    save(tmp_path / "e.npz", signal=1, dims=2)
    with pytest.raises(ValueError, match=re.escape("The expression '(x)' finds no group")):
        fire.Fire(cross_validate, command=[str(tmp_path / "e.npz"), "--group", "(x)"])
