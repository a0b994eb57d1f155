# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from endofm_monai.data import ClipDataset, ClipKey, EpochSampler


def make_dataset(*weights: float | None) -> ClipDataset:
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
    dataset = make_dataset(*[None] * 10)
    for rank, sampler in enumerate(ranks(dataset, size, seed=7)):
        theirs = DistributedSampler(dataset, num_replicas=size, rank=rank, seed=7)
        assert len(sampler) == len(theirs)
        for epoch in (0, 3):
            theirs.set_epoch(epoch)
            assert epoch_of(sampler, epoch) == [ClipKey(clip, epoch) for clip in theirs]


def test_a_source_of_small_weight_is_seen_wholly_over_the_epochs():
    sampler = EpochSampler(make_dataset(*[None] * 4, *[0.25] * 8))
    seen = counts(sampler, 8)
    assert all(sum(epoch.values()) == len(sampler) == 6 for epoch in seen)
    assert all(epoch[clip] == 1 for epoch in seen for clip in range(4))
    for start in (0, 4):  # each clip once in four epochs
        assert sum(seen[start : start + 4], Counter()) == Counter(
            {**dict.fromkeys(range(4), 4), **dict.fromkeys(range(4, 12), 1)}
        )
    assert {clip for clip in seen[0] if clip > 3} != {clip for clip in seen[1] if clip > 3}


def test_a_clip_of_great_weight_is_seen_several_times_and_never_the_same(monkeypatch):
    sampler = EpochSampler(make_dataset(*[2.5] * 4, 1))
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
    dataset = make_dataset(None, 0.5, 3, 0.5, 0.5, 3, 0.5, None)
    (alone,) = ranks(dataset, 1, seed=2, shuffle=shuffle)
    samplers = ranks(dataset, 3, seed=2, shuffle=shuffle)
    for epoch in (0, 5):
        whole, parts = epoch_of(alone, epoch), [epoch_of(sampler, epoch) for sampler in samplers]
        assert len(whole) == 10
        assert [len(part) for part in parts] == [4, 4, 4]
        together = [key for keys in zip(*parts, strict=True) for key in keys]
        assert together == whole + whole[:2]
    if not shuffle:
        assert [key.clip for key in whole] == sorted(key.clip for key in whole)


def test_an_interrupted_epoch_goes_on_where_it_was():
    sampler = EpochSampler(make_dataset(*[0.5] * 6, *[2] * 3), seed=3)
    whole = epoch_of(sampler, 4)
    again = EpochSampler(sampler.dataset, seed=3)
    again.skip(5)
    assert epoch_of(again, 4) == whole[5:]
    assert epoch_of(again, 4) == whole
    assert epoch_of(again, 5) != whole


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 0], "expected a positive number, found 0 in .*1.mp4"),
        ([-1, 1], "found -1 in .*0.mp4"),
        (["2", 1], "found '2'"),
        ([float("nan")], "found nan"),
        ([float("inf")], "found inf"),
        ([True], "found True"),
        ([1, 0.2, 0.2], "2 clips of weight 0.2 are less than one clip an epoch"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    with pytest.raises(ValueError, match=message):
        EpochSampler(make_dataset(*weights))


def test_other_datasets_have_no_weights():
    assert sorted(key.clip for key in EpochSampler(torch.utils.data.TensorDataset(torch.zeros(4)))) == [0, 1, 2, 3]
