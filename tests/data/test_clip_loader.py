# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.data import ClipDataset, ClipLoader, ClipReadError, EpochSampler


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
