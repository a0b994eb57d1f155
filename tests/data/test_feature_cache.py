# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from monai.data import DataLoader
from torch import nn

from endofm_monai.data import ClipReadError, EpochSampler, FeatureCache, collate_clips


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


def load(item):
    if item["image"] is None:
        raise ClipReadError("lost.mp4: does not exist")
    return {**item, "image": torch.full((3, 2, 4, 4), item["image"])}


def test_features_take_the_place_of_clips_and_are_computed_once():
    items = [{"image": value, "label": index} for index, value in enumerate((1.0, None, 3.0, 4.0, 5.0))]
    network = Doubling().train()
    cache = FeatureCache(items, load, network, "cpu", batch_size=2)
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
    cache = FeatureCache(items, load, Doubling(), "cpu", batch_size=4, num_workers=2)
    assert [cache[index]["image"][0].item() for index in range(6)] == [0, 2, 4, 6, 8, 10]
