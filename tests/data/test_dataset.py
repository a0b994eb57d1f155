# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from torch import nn
from torch.utils.data import DistributedSampler

from endofm_monai.data import (
    ClipDataset,
    ClipKey,
    ClipLoader,
    ClipReadError,
    EpochSampler,
    FeatureCache,
    collate_clips,
    split_clips,
)


def load(item):
    if item["value"] is None:
        raise ClipReadError("lost.mp4: does not exist")
    return {**item, "image": torch.full((3, 2, 4, 4), float(item["value"]))}


def make_dataset(*values):
    return ClipDataset([{"value": value} for value in values], load)


def test_without_shuffling_all_clips_come_in_order():
    first, second = ClipLoader(make_dataset(0, None, 2), batch_size=2)
    assert first["image"][:, 0, 0, 0, 0].tolist() == [0]
    assert first["broken"] == ["lost.mp4: does not exist"]
    assert second["image"].shape == (1, 3, 2, 4, 4)


def test_in_training_a_last_batch_that_is_not_full_is_left_out():
    dataset = make_dataset(*range(5))
    sampler = EpochSampler(dataset, seed=1)
    loader = ClipLoader(dataset, 2, shuffle=True, seed=1, num_workers=1)
    assert [batch["index"].tolist() for batch in loader] == torch.tensor([key.clip for key in sampler])[:4].view(
        2, 2
    ).tolist()
    assert len(ClipLoader(dataset, 2, shuffle=True, drop_last=False)) == 3


def test_loading_draws_nothing_from_the_global_random_state():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(ClipLoader(make_dataset(0, 1)))
    assert torch.equal(torch.rand(1), expected)


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


@pytest.mark.parametrize("label", [1, "mask.png", [0, 1], torch.tensor(1.0)])
def test_an_item_without_a_label_leaves_the_others_theirs(label):
    items = [{"image": torch.zeros(3, 2, 4, 4), "index": index} for index in range(3)]
    for labeled in range(2):
        items[labeled]["label"] = (label, 0)[labeled]
    batch = collate_clips(items)
    assert batch["label"] == [label, 0, None]
    assert [item.get("label") for item in split_clips(batch)] == [label, 0, None]
    assert "label" not in split_clips(batch)[2]


def test_whole_clips_become_a_batch():
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
    assert batch["extra"] == [None, 1]
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


def weighted_dataset(*weights: float | None) -> ClipDataset:
    items = [{"image": f"{number}.mp4"} for number in range(len(weights))]
    for item, weight in zip(items, weights, strict=True):
        if weight is not None:
            item["weight"] = weight
    return ClipDataset(items, dict)


def epoch_of(sampler: EpochSampler, epoch: int) -> list[ClipKey]:
    sampler.set_epoch(epoch)
    return list(sampler)


def counts(sampler: EpochSampler, epochs: int) -> list[Counter]:
    """How often each clip is seen in each epoch."""
    return [Counter(key.clip for key in epoch_of(sampler, epoch)) for epoch in range(epochs)]


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the samplers of all ranks."""

    def make(dataset: Any, size: int, **options: Any) -> list[EpochSampler]:
        samplers = []
        for rank in range(size):
            world = SimpleNamespace(get_world_size=lambda: size, get_rank=lambda rank=rank: rank)
            monkeypatch.setattr("endofm_monai.data.dataset.idist", world)
            samplers.append(EpochSampler(dataset, **options))
        return samplers

    return make


@pytest.mark.parametrize("size", [1, 3])
def test_without_weights_it_is_the_order_of_torch(ranks, size):
    dataset = weighted_dataset(*[None] * 10)
    for rank, sampler in enumerate(ranks(dataset, size, seed=7)):
        theirs = DistributedSampler(dataset, num_replicas=size, rank=rank, seed=7)
        assert len(sampler) == len(theirs)
        for epoch in (0, 3):
            theirs.set_epoch(epoch)
            assert epoch_of(sampler, epoch) == [ClipKey(clip, epoch) for clip in theirs]


def test_a_source_of_small_weight_is_seen_wholly_over_the_epochs():
    sampler = EpochSampler(weighted_dataset(*[None] * 4, *[0.25] * 8))
    seen = counts(sampler, 8)
    assert all(sum(epoch.values()) == len(sampler) == 6 for epoch in seen)
    assert all(epoch[clip] == 1 for epoch in seen for clip in range(4))
    for start in (0, 4):  # each clip once in four epochs
        assert sum(seen[start : start + 4], Counter()) == Counter(
            {**dict.fromkeys(range(4), 4), **dict.fromkeys(range(4, 12), 1)}
        )
    assert {clip for clip in seen[0] if clip > 3} != {clip for clip in seen[1] if clip > 3}


def test_repeats_make_epochs_longer_and_every_time_another():
    dataset = weighted_dataset(None, 2, None)
    keys = list(EpochSampler(dataset, repeats=3))
    assert sorted(key.clip for key in keys) == [0] * 3 + [1] * 6 + [2] * 3
    assert len(set(keys)) == 12


def test_a_clip_of_great_weight_is_seen_several_times_and_never_the_same(monkeypatch):
    sampler = EpochSampler(weighted_dataset(*[2.5] * 4, 1))
    first, second = counts(sampler, 2)
    assert sorted(first[clip] for clip in range(4)) == sorted(second[clip] for clip in range(4)) == [2, 2, 3, 3]
    assert [(first + second)[clip] for clip in range(4)] == [5] * 4
    assert first[4] == 1
    keys = [key for key in epoch_of(sampler, 1) if key.clip == 0]
    assert sorted(key.repeat for key in keys) == list(range(len(keys)))
    seeds = [sampler.dataset[key]["seed"] for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert sampler.dataset[ClipKey(0, 1)]["seed"] in seeds  # the first time is as without weights


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch(ranks, shuffle):
    dataset = weighted_dataset(None, 0.5, 3, 0.5, 0.5, 3, 0.5, None)
    (alone,) = ranks(dataset, 1, seed=2, shuffle=shuffle)
    samplers = ranks(dataset, 3, seed=2, shuffle=shuffle)
    for epoch in (0, 5):
        whole, parts = epoch_of(alone, epoch), [epoch_of(sampler, epoch) for sampler in samplers]
        assert len(whole) == (10 if shuffle else 8)
        assert {len(part) for part in parts} == {4 if shuffle else 3}
        together = [key for keys in zip(*parts, strict=True) for key in keys]
        assert together == whole + whole[: len(together) - len(whole)]
    if not shuffle:  # all, as a loader in one process gives them, whatever their weights
        assert [key.clip for key in whole] == [*range(8)]


def test_an_interrupted_epoch_goes_on_where_it_was():
    sampler = EpochSampler(weighted_dataset(*[0.5] * 6, *[2] * 3), seed=3)
    whole = epoch_of(sampler, 4)
    again = EpochSampler(sampler.dataset, seed=3)
    again.skip(5)
    assert epoch_of(again, 4) == whole[5:]
    assert epoch_of(again, 4) == whole
    assert epoch_of(again, 5) != whole


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 0], "1.mp4.* weight: expected a positive number, found 0"),
        ([-1, 1], "0.mp4.*found -1"),
        (["2", 1], "found '2'"),
        ([float("nan")], "found nan"),
        ([float("inf")], "found inf"),
        ([True], "found True"),
        ([1, 0.2, 0.2], "2 clips of weight 0.2 are less than one clip an epoch"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    with pytest.raises(ValueError, match=message):
        EpochSampler(weighted_dataset(*weights))


def test_weights_that_rounding_takes_the_effect_of_are_told(caplog):
    EpochSampler(weighted_dataset(1.4, *[2.5] * 3, *[0.25] * 4, 3, None))  # 7.5 are 8
    assert not [message for message in caplog.messages if "2.5" in message or "0.25" in message]
    assert "weight: few clips share a weight, so an epoch sees 1 of weight 1.4 1 times together; give" in caplog.text


def test_other_datasets_have_no_weights():
    assert sorted(key.clip for key in EpochSampler(torch.utils.data.TensorDataset(torch.zeros(4)))) == [0, 1, 2, 3]


class Doubling(nn.Module):
    """Counts the clips that it sees, and is random while training."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.seen = 0

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        noise = torch.rand(()) if self.training else 0
        return (x * self.scale).mean(dim=(2, 3, 4)) + noise


def load_value(item):
    if item["image"] is None:
        raise ClipReadError("lost.mp4: does not exist")
    return {**item, "image": torch.full((3, 2, 4, 4), item["image"])}


def test_features_take_the_place_of_clips_and_are_computed_once():
    items = [{"image": value, "label": index} for index, value in enumerate((1.0, None, 3.0, 4.0, 5.0))]
    network = Doubling().train()
    cache = FeatureCache(items, load_value, network, "cpu", batch_size=2)
    assert network.training
    loader = DataLoader(cache, batch_size=5, sampler=EpochSampler(cache, shuffle=False), collate_fn=collate_clips)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
    assert network.seen == 4
    assert batch["image"].tolist() == [[2.0] * 3, [6.0] * 3, [8.0] * 3, [10.0] * 3]
    assert not batch["image"].requires_grad
    assert batch["label"].tolist() == [0, 2, 3, 4]
    assert batch["broken"] == ["lost.mp4: does not exist"]
    nn.Linear(3, 2)(batch["image"]).sum().backward()  # a head can learn from it


def test_workers_read_the_clips():
    items = [{"image": float(value)} for value in range(6)]
    cache = FeatureCache(items, load_value, Doubling(), "cpu", batch_size=4, num_workers=2)
    assert [cache[index]["image"][0].item() for index in range(6)] == [0, 2, 4, 6, 8, 10]
