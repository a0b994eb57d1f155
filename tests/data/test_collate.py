# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.data import collate_clips, split_clips


def views_item(value, **others):
    return {"image": [torch.full((3, 2, 4, 4), value), torch.full((3, 1, 2, 2), value)], "seed": 5, **others}


def clip_item(height, **others):
    return {
        "image": torch.zeros(3, 4, height, 6, dtype=torch.uint8),
        "seed": height,
        **others,
    }


def test_views_are_stacked_one_by_one():
    batch = collate_clips([views_item(0.0, label=2), views_item(1.0, label=0)])
    assert [view.shape for view in batch["image"]] == [(2, 3, 2, 4, 4), (2, 3, 1, 2, 2)]
    assert batch["image"][1][:, 0, 0, 0, 0].tolist() == [0, 1]
    assert batch["label"].tolist() == [2, 0]
    assert batch["seed"].tolist() == [5, 5]
    assert batch["broken"] == []


def test_clips_of_different_sizes_stay_a_list():
    batch = collate_clips([clip_item(8), clip_item(7)])
    assert [clip.shape[2] for clip in batch["image"]] == [8, 7]
    assert batch["seed"].tolist() == [8, 7]


@pytest.mark.parametrize("make", [clip_item, views_item])
def test_broken_items_are_left_out_and_told(make):
    batch = collate_clips([{"broken": "a.mp4: no"}, make(4), {"broken": "b.mp4: none"}])
    assert batch["broken"] == ["a.mp4: no", "b.mp4: none"]
    assert len(batch["seed"]) == 1


def test_a_batch_of_broken_items():
    assert collate_clips([{"broken": "a.mp4: no"}]) == {"image": [], "broken": ["a.mp4: no"]}


def test_a_label_that_an_item_lacks_is_left_out():
    assert "label" not in collate_clips([clip_item(4, label=1), clip_item(4)])


def test_whole_clips_become_a_batch_of_the_keys_that_all_have():
    def item(value, **others):
        return {"image": torch.full((3, 2, 4, 4), value), "index": int(value), **others}

    batch = collate_clips(
        [item(0.0, label=1, mask=["a"]), {"broken": "lost.mp4: no"}, item(1.0, label=0, mask=["b", "c"], extra=1)]
    )
    assert batch["image"].shape == (2, 3, 2, 4, 4)
    assert batch["index"].tolist() == [0, 1]
    assert batch["label"].tolist() == [1, 0]
    assert batch["mask"] == [["a"], ["b", "c"]]
    assert batch["broken"] == ["lost.mp4: no"]
    assert "extra" not in batch
    assert collate_clips([{"broken": "lost.mp4: no"}]) == {"image": [], "broken": ["lost.mp4: no"]}


def test_items_of_a_batch_keep_their_own_lists():
    items = [
        {"image": torch.zeros(3, 2, 4, 4), "label": 0, "box": [[], []], "path": "a"},
        {"image": torch.ones(3, 2, 4, 4), "label": 1, "box": [[[0, 0, 2, 2]], []], "path": "b"},
    ]
    split = split_clips(collate_clips([*items, {"broken": "c: cannot be read"}]))
    assert [(item["label"], item["box"], item["path"]) for item in split] == [
        (0, [[], []], "a"),
        (1, [[[0, 0, 2, 2]], []], "b"),
    ]
    assert torch.equal(split[1]["image"], items[1]["image"])
