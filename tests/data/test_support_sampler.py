# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from endofm_monai.data import ClipInfo, SupportSampler


def draw(sampler: SupportSampler, frames: int, key: int, seed: int = 0) -> list[int]:
    """What a training item reads."""
    info = ClipInfo(frames, 30.0, 8, 8, frames / 30)
    return sampler(info, {"frame_index": key}, np.random.RandomState(seed)).tolist()


def test_supports_depend_on_the_seed_and_the_frame_alone():
    sampler = SupportSampler(10, 9, seed=3)
    assert sampler.supports(40, 100) == sampler.supports(40, 50)
    assert sampler.supports(40, 100) != SupportSampler(10, 9, seed=4).supports(40, 100)
    random = np.random.default_rng([3, 40])
    before, after = random.permutation(np.arange(31, 40))[:5], random.permutation(np.arange(41, 50))[:5]
    assert sampler.supports(40, 100) == [*before, *after]


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_supports_are_frames_about_the_key_frame_and_none_twice(mode, index):
    supports = SupportSampler(4, 3, mode).supports(index, 12)
    near = [frame for frame in range(12) if 0 < abs(frame - index) <= 3 and (mode == "offline" or frame < index)]
    assert len(set(supports)) == len(supports) == min(4, len(near) or 1)
    assert set(supports) <= set(near or [index])


def test_a_key_frame_comes_first_and_has_all_its_supports():
    sampler = SupportSampler(num_supports=3, window=4)
    assert draw(sampler, 1, 0) == [0, 0, 0, 0]
    assert draw(sampler, 2, 1) == [1, 0, 0, 0]
    assert draw(sampler, 12, 5, seed=1) == draw(sampler, 12, 5, seed=1)
    drawn = [draw(sampler, 12, 5, seed) for seed in range(40)]
    assert {indices[0] for indices in drawn} == {5}
    assert {support for indices in drawn for support in indices[1:]} == {1, 2, 3, 4, 6, 7, 8, 9}
    assert all(sum(support < 5 for support in indices[1:]) == 1 for indices in drawn)
