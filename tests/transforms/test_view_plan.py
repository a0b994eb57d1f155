# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from endofm_monai.transforms import ViewPlan


def test_default_plan_is_the_published_one():
    views = list(ViewPlan())
    assert [(view.name, view.frames, view.size) for view in views] == [
        ("g1", 8, 224),
        ("g2", 16, 224),
        *[(f"l{i}", frames, 96) for i, frames in enumerate((2, 2, 4, 4, 8, 8, 16, 16), start=1)],
    ]
    assert [view.is_global for view in views] == [True] * 2 + [False] * 8
    assert {view.scale for view in views[:2]} == {(0.4, 1.0)}
    assert {view.scale for view in views[2:]} == {(0.05, 0.4)}
    assert len(ViewPlan()) == 10


def test_lists_from_json_are_accepted():
    values = json.loads('{"global_frames": [4], "local_frames": [1, 6], "local_scale": [0.1, 0.2], "ratio": [1, 1]}')
    plan = ViewPlan(**values)
    assert plan == ViewPlan(global_frames=(4,), local_frames=(1, 6), local_scale=(0.1, 0.2), ratio=(1, 1))
    assert len({plan, plan}) == 1
    assert plan.longest == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("global_frames", ()),
        ("global_frames", (8, 0)),
        ("local_frames", (2, -1)),
        ("local_frames", (2.5,)),
        ("global_size", 0),
        ("local_size", 96.0),
        ("global_scale", (0.0, 1.0)),
        ("global_scale", (0.4, 1.1)),
        ("local_scale", (0.4, 0.05)),
        ("local_scale", (0.4,)),
        ("ratio", (0, 1)),
        ("ratio", (4 / 3, 3 / 4)),
        ("local_span", 0),
        ("local_span", 1.5),
    ],
)
def test_values_outside_their_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ViewPlan(**{name: value})


def test_frames_are_the_published_ones():
    frames = ViewPlan().draw_frames(150, np.random.RandomState(0))
    assert frames[0].tolist() == [0, 20, 41, 62, 82, 103, 124, 145]
    assert frames[1].tolist() == [5, 14, 24, 34, 43, 53, 63, 72, 82, 92, 101, 111, 121, 130, 140, 149]


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [
        (107, 2, [107, 125]),
        (66, 4, [66, 72, 78, 84]),
        (124, 8, [124, 126, 129, 131, 134, 136, 139, 142]),
        (77, 16, [77, 78, 79, 80, 81, 83, 84, 85, 86, 87, 89, 90, 91, 92, 93, 95]),
    ],
)
def test_local_frames_are_the_published_ones_for_its_start(start, count, expected):
    class FixedStart:
        def randint(self, high):
            assert high == 150 - 18  # so the latest start is 131, and the view ends with the clip
            return start

    plan = ViewPlan(global_frames=(1,), local_frames=(count,))
    assert plan.draw_frames(150, FixedStart())[1].tolist() == expected


def test_local_starts_reach_from_the_first_to_the_last_possible_frame():
    plan = ViewPlan(local_frames=(2,) * 2000)
    views = torch.stack(plan.draw_frames(40, np.random.RandomState(0))[2:])
    assert (views[:, 1] - views[:, 0] == 5).all()
    assert (views[:, 0].min(), views[:, 1].max()) == (0, 39)


@pytest.mark.parametrize("clip_frames", [1, 2, 3, 7, 8, 9, 15, 300])
@pytest.mark.parametrize("plan", [ViewPlan(), ViewPlan((5,), (3,), local_span=1), ViewPlan((2, 4, 6), ())])
def test_any_clip_gives_every_view_its_frames(clip_frames, plan):
    frames = plan.draw_frames(clip_frames, np.random.RandomState(0))
    assert [len(indices) for indices in frames] == [view.frames for view in plan]
    for indices in frames:
        assert indices.dtype == torch.int64
        assert 0 <= indices.min() <= indices.max() < clip_frames
        assert (indices.diff() >= 0).all()


def test_global_views_of_short_clips_span_most_of_them():
    first, last = ViewPlan().draw_frames(4, np.random.RandomState(0))[:2]
    assert (first[0], first[-1], last[0], last[-1]) == (0, 2, 2, 3)


def test_one_global_view_spans_the_clip_and_three_lie_evenly():
    random_state = np.random.RandomState(0)
    (single,) = ViewPlan((3,), ()).draw_frames(101, random_state)
    assert single.tolist() == [0, 50, 100]
    starts = [view[0].item() for view in ViewPlan((2, 2, 2), ()).draw_frames(100, random_state)]
    ends = [view[1].item() for view in ViewPlan((2, 2, 2), ()).draw_frames(100, random_state)]
    assert (starts, ends) == ([0, 2, 5], [95, 97, 99])


def test_draws_depend_on_the_seed_only():
    first, again, other = (ViewPlan().draw_frames(300, np.random.RandomState(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
