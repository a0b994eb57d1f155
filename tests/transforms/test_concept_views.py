# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from endofm_monai.data import ClipInfo, ClipReadError
from endofm_monai.transforms import ClipPairPlan, RandConceptViews, RandConceptViewsd


def draw(frames: int, seed: int = 0, **settings: float) -> torch.Tensor:
    info = ClipInfo(frames, 30.0, 20, 20, frames / 30)
    return ClipPairPlan(num_frames=4, **settings)(info, {"image": "a.mp4"}, np.random.RandomState(seed))


@pytest.mark.parametrize("frames", [8, 9, 20, 1000])
def test_clips_follow_each_other_with_one_stride_within_the_video(frames):
    found = torch.stack([draw(frames, seed) for seed in range(200)])
    pair, stills = found[:, :8], found[:, 8:]
    steps = pair.diff(dim=1)
    assert pair.min() >= 0
    assert pair.max() < frames
    assert steps.min() >= 1
    assert steps.max() <= (3 if frames > 20 else -(-frames // 8))
    assert (steps.amax(dim=1) - steps.amin(dim=1)).max() <= 1  # a stride between whole frames is rounded
    place = (pair[:, :4] == stills[:, :1]).int().argmax(dim=1)
    assert pair[:, 4:].gather(1, place[:, None]).equal(stills[:, 1:])
    assert set(place.tolist()) == {0, 1, 2, 3}
    if frames == 8:
        assert pair.equal(torch.arange(8).expand(200, 8))
    if frames == 1000:
        assert pair[:, 0].min() < 100
        assert pair[:, -1].max() > 900


def test_a_video_shorter_than_two_clips_is_an_error_that_names_it():
    with pytest.raises(ClipReadError, match="^a.mp4: has 7 frames, fewer than two clips of `num_frames`=4"):
        draw(7)


@pytest.mark.parametrize(("name", "value"), [("num_frames", 1), ("max_stride", 0.5)])
def test_values_outside_their_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ClipPairPlan(**{name: value})


def test_six_clips_are_two_of_each_kind():
    plan = ClipPairPlan(num_frames=4, frame_size=16)
    clip = torch.randint(0, 256, (3, 10, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    item = RandConceptViewsd("image", plan)({"image": clip, "seed": 3})
    views = item["image"]
    assert [tuple(view.shape) for view in views] == [(3, 4, 16, 16)] * 6
    for rgb, dynamic in zip(views[:2], views[4:], strict=True):
        torch.testing.assert_close(dynamic[:, 1:], rgb[:, 1:] - rgb[:, :-1])
        torch.testing.assert_close(dynamic[:, 0], rgb[:, 0] - rgb[:, -1])
        torch.testing.assert_close(dynamic.sum(dim=1), torch.zeros(3, 16, 16), atol=1e-5, rtol=0)
    for static in views[2:4]:
        assert static.equal(static[:, :1].expand_as(static))
    again = RandConceptViewsd("image", plan)({"image": clip, "seed": 3})["image"]
    assert all(one.equal(other) for one, other in zip(views, again, strict=True))


def test_clips_are_augmented_each_for_itself_and_alike_in_all_frames():
    plan = ClipPairPlan(num_frames=2, frame_size=16, scale=(0.4, 0.5))
    frame = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = RandConceptViews(plan).set_random_state(seed=0)(frame.repeat(1, 6, 1, 1))
    assert not any(views[0].allclose(view) for view in views[1:4])
    assert views[0][:, 0].equal(views[0][:, 1])
    assert not views[4].any()  # nothing moves
