# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dataset_files import script, write_image

from endofm_monai.data import ClipDataset, EpochSampler, load_datalist
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset


@pytest.fixture(scope="module")
def sets(tmp_path_factory: Any) -> Path:
    """Two prepared sets, of four videos for training, and of two for training and two for the test."""
    root = tmp_path_factory.mktemp("sets")
    for name, count in (("large", 4), ("small", 2)):
        videos = [
            SourceVideo(
                str(number),
                [write_image(root / "raw" / name / f"{number}_{frame}.png", number, frame) for frame in range(2)],
                section="training" if number < count else "test",
                labels={"label": 1},
            )
            for number in range(4)
        ]
        prepare_dataset(SourceDataset(name, "none"), videos, root / "raw" / name, root / name, workers=1, stats=False)
    return root


@pytest.fixture
def merge(sets: Path, tmp_path: Path) -> Any:
    """Merges the sets, and gives what was written."""

    def run(**options: Any) -> dict[str, Any]:
        folders = [str(sets / name) for name in ("large", "small")]
        script("pretraining_mix.py").merge_datalists(*folders, output=str(tmp_path / "mix.json"), **options)
        return json.loads((tmp_path / "mix.json").read_text())

    return run


def test_the_training_parts_are_merged(merge):
    merged = merge()
    assert merged["training"] == [
        *({"source": "large", "image": [f"large/{n}_0.png", f"large/{n}_1.png"]} for n in range(4)),
        *({"source": "small", "image": [f"small/{n}_0.png", f"small/{n}_1.png"]} for n in range(2)),
    ]
    assert merge(sections="training") == merged
    assert merge(keep_labels=True)["training"][0]["label"] == 1
    assert len(merge(sections=("training", "test"))["training"]) == 8
    labelled = merge(sections=("training", "test"), keep_labels=True)
    assert [len(labelled[section]) for section in ("training", "test")] == [6, 2]


def test_masks_move_with_their_frames_where_labels_are_kept(merge, sets):
    path = sets / "small" / "datalist.json"
    content = path.read_text()
    labelled = json.loads(content)
    labelled["training"][0]["mask"] = ["masks/0.png", None]
    path.write_text(json.dumps(labelled))
    merged = merge(keep_labels=True)["training"][4]
    path.write_text(content)
    assert merged["image"] == ["small/0_0.png", "small/0_1.png"]
    assert merged["mask"] == ["small/masks/0.png", None]


def test_labels_of_other_meaning_are_not_mixed(merge, sets):
    for name, meaning in (("large", "polyp"), ("small", "adenomatous")):
        path = sets / name / "datalist.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "labels": {"1": meaning}}))
    with pytest.raises(ValueError, match="small: `label` 1 is 'adenomatous' here, but 'polyp' in .*large$"):
        merge(keep_labels=True)
    assert len(merge()["training"]) == 6
    labelled = json.loads(path.read_text())
    del labelled["training"][0]["label"]  # as of a clip whose class its owners do not tell
    path.write_text(json.dumps(labelled))
    with pytest.raises(ValueError, match="small: `label` 1 is 'adenomatous' here, but 'polyp' in .*large$"):
        merge(keep_labels=True)
    path.write_text(json.dumps({**labelled, "labels": {"1": "polyp"}}))
    assert merge(keep_labels=True)["labels"] == {"1": "polyp"}  # so that no task takes another order for that


def test_videos_of_one_name_in_two_sets_stay_two(merge):
    videos = [item["video"] for item in merge(keep_labels=True)["training"]]
    assert videos == ["large/0", "large/1", "2", "3", "small/0", "small/1"]


def test_groups_of_one_name_in_two_sets_stay_two(merge, sets):
    for name, groups in (("large", ["case1", 7, "a", ""]), ("small", ["case1", "7"])):
        listed = json.loads((path := sets / name / "datalist.json").read_text())
        for item, group in zip(listed["training"], groups, strict=True):
            item["group"] = group
        path.write_text(json.dumps(listed))
    groups = [item["group"] for item in merge(keep_labels=True)["training"]]
    assert groups == ["large/case1", "large/7", "a", "", "small/case1", "small/7"]


def test_weights_reach_the_sampler_and_drop_no_clip(merge, sets, tmp_path):
    merged = merge(weight={"large": 0.5, "small": 2})
    assert merged["sources"] == {"large": {"clips": 4, "weight": 0.5}, "small": {"clips": 2, "weight": 2.0}}
    assert [item["weight"] for item in merged["training"]] == [0.5] * 4 + [2.0] * 2
    dataset = ClipDataset(load_datalist(sets / "raw", tmp_path / "mix.json"), dict)
    sampler = EpochSampler(dataset)
    seen = Counter()
    for epoch in range(2):
        sampler.set_epoch(epoch)
        sources = Counter(dataset.data[key.clip]["source"] for key in sampler)
        assert sources == {"large": 2, "small": 4}
        seen.update(key.clip for key in sampler)
    assert seen == {0: 1, 1: 1, 2: 1, 3: 1, 4: 4, 5: 4}


def test_weights_are_of_the_training(merge):
    tested = merge(weight={"small": 2}, keep_labels=True, sections=("training", "test"))["test"]
    assert [item.get("weight") for item in tested] == [None] * 2  # of which each counts once


def test_two_sets_of_one_name_are_both_counted(merge, sets):
    for name in ("large", "small"):
        manifest = json.loads((path := sets / name / "manifest.json").read_text())
        path.write_text(json.dumps({**manifest, "name": "own videos"}))
    merged = merge(weight={"small": 2})
    sources = {"own videos (large)": {"clips": 4, "weight": 1.0}, "own videos (small)": {"clips": 2, "weight": 2.0}}
    assert merged["sources"] == sources
    assert [item["source"] for item in merged["training"]] == ["own videos (large)"] * 4 + ["own videos (small)"] * 2


@pytest.mark.parametrize("weight", [{"elsewhere": 1}, {"small": 0}, {"small": -1}, {"small": "1"}])
def test_a_weight_of_no_folder_or_that_cannot_be(merge, weight):
    with pytest.raises(ValueError, match=r"weight: expected a positive number for one of .*small, found"):
        merge(weight=weight)


def test_weights_of_no_folders(merge):
    with pytest.raises(ValueError, match=r"weight: expected numbers by folder, as .*, found 0\.5"):
        merge(weight=0.5)


def test_nothing_to_merge(merge):
    with pytest.raises(ValueError, match="folders: expected one or more"):
        script("pretraining_mix.py").merge_datalists(output="none.json")
    with pytest.raises(ValueError, match="no clips in validation"):
        merge(sections=("validation",))
