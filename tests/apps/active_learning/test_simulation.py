# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.apps.active_learning.selection import clip_windows
from endofm_monai.apps.active_learning.simulation import STRATEGIES, Frames, simulate


def make_frames(number: int, seed: int) -> Frames:
    """Frames whose tokens say with noise where the mask is."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(number, 1, 4, 4, generator=random) > 0.6
    tokens = masks * 2.0 + torch.randn(number, 8, 4, 4, generator=random) * 0.5
    native = torch.nn.functional.interpolate(masks.float(), (24, 32))[:, 0].to(torch.uint8)
    return Frames(tokens.half(), tokens.mean(dim=(2, 3)), list(native), clip_windows({"a": number}, 2))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_frames_teach_more(strategy):
    pool, validation = make_frames(24, 0), make_frames(6, 1)
    options = {"first": 1, "step": 8, "last": 9, "iterations": 40}
    found = list(simulate(pool, validation, strategy, seed=0, **options))
    assert [count for count, _ in found] == [1, 9]
    assert 0 < found[0][1] < found[-1][1] < 1
    assert found[-1][1] > 0.8


def test_what_cannot_be_simulated_is_named():
    pool = make_frames(6, 0)
    with pytest.raises(ValueError, match="must be one of random, uncertainty, k-center, both, but got 'best'"):
        next(simulate(pool, pool, "best", seed=0))
    with pytest.raises(ValueError, match="has 3 windows, too few for `last`=4"):
        next(simulate(pool, pool, "random", seed=0, last=4))
