# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset

from endofm_monai.data import collate_clips
from endofm_monai.engines import PrepareViews
from endofm_monai.transforms import RandAugmentViewsd, ViewPlan

PLAN = ViewPlan((3,), (2, 2), global_size=16, local_size=8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def items():
    generator = torch.Generator().manual_seed(0)
    for seed, height in ((3, 20), (4, 24)):
        clip = torch.randint(0, 256, (3, 7, height, 26), dtype=torch.uint8, generator=generator)
        yield {"image": clip, "seed": seed}


@pytest.mark.parametrize("device", DEVICES)
def test_views_are_the_same_made_in_a_worker_or_on_the_device(device):
    augment = RandAugmentViewsd("image", PLAN)
    prepare = PrepareViews(augment)
    loader = DataLoader(Dataset(list(items()), augment), batch_size=2, num_workers=1, collate_fn=collate_clips)
    in_worker, labels = prepare(next(iter(loader)), device, non_blocking=True)
    on_device, _ = prepare(collate_clips(list(items())), device, non_blocking=True)
    assert labels is None
    assert [view.shape for view in in_worker] == [(2, 3, 3, 16, 16), (2, 3, 2, 8, 8), (2, 3, 2, 8, 8)]
    for view, other in zip(in_worker, on_device, strict=True):
        assert view.device.type == other.device.type == device
        torch.testing.assert_close(view, other, atol=0 if device == "cpu" else 1e-3, rtol=0)


def test_a_batch_without_clips_gives_empty_views():
    views, _ = PrepareViews(RandAugmentViewsd("image", PLAN))(collate_clips([{"broken": "a.mp4: no"}]), "cpu")
    assert [view.shape for view in views] == [(0, 3, 3, 16, 16), (0, 3, 2, 8, 8), (0, 3, 2, 8, 8)]


def test_further_arguments_reach_the_views():
    prepare = PrepareViews(RandAugmentViewsd("image", PLAN))
    assert {view.dtype for view in prepare(collate_clips(list(items())), dtype=torch.float64)[0]} == {torch.float64}


def test_clips_need_a_seed():
    with pytest.raises(KeyError, match="seed"):
        PrepareViews(RandAugmentViewsd("image", PLAN))({"image": [torch.zeros(3, 7, 20, 26, dtype=torch.uint8)]})
