# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from endofm_monai.data import ClipInfo
from endofm_monai.transforms import LoadClipd, NormalizeClip, RandAugmentViews, RandAugmentViewsd, ViewPlan
from endofm_monai.transforms.geometry import resize_to_square


def test_default_plan_is_the_published_one():
    views = list(ViewPlan())
    assert [view.frames for view in views] == [8, 16, 2, 2, 4, 4, 8, 8, 16, 16]
    assert [view.size for view in views] == [224] * 2 + [96] * 8
    assert [view.is_global for view in views] == [True] * 2 + [False] * 8
    assert {view.scale for view in views[:2]} == {(0.4, 1.0)}
    assert {view.scale for view in views[2:]} == {(0.05, 0.4)}
    assert len(list(ViewPlan())) == 10


def test_lists_from_json_are_accepted():
    values = json.loads('{"global_frames": [4], "local_frames": [1, 6], "local_scale": [0.1, 0.2], "ratio": [1, 1]}')
    plan = ViewPlan(**values)
    assert plan == ViewPlan(global_frames=(4,), local_frames=(1, 6), local_scale=(0.1, 0.2), ratio=(1, 1))
    assert len({plan, plan}) == 1


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
        ("window", 0),
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


PLAN = ViewPlan((3, 5), (2, 4), global_size=24, local_size=16)
NO_CHANGE = {
    "flip_prob": 0.0,
    "jitter_prob": 0.0,
    "gray_prob": 0.0,
    "global_blur_prob": [0.0],
    "local_blur_prob": 0.0,
    "global_solarize_prob": [0.0],
}
WHOLE = ViewPlan((3, 5), (2, 4), 24, 16, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


@pytest.fixture
def clip():
    """The frames of all views of ``PLAN``."""
    return torch.randint(0, 256, (3, 14, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_same(views, others, **tolerance):
    for view, other in zip(views, others, strict=True):
        torch.testing.assert_close(view, other, **tolerance)


def test_default_views_have_the_published_shapes(clip):
    plan = ViewPlan()
    views = RandAugmentViews(plan)(clip[:, :1].expand(-1, 84, -1, -1))
    assert [view.shape for view in views] == [(3, view.frames, view.size, view.size) for view in plan]
    assert {view.dtype for view in views} == {torch.float32}


def test_without_changes_views_are_the_resized_frames(clip):
    square = clip[..., :30]
    views = RandAugmentViews(WHOLE, **NO_CHANGE)(square)
    for view, frames, size in zip(views, square.split([3, 5, 2, 4], dim=1), (24, 24, 16, 16), strict=True):
        torch.testing.assert_close(view, NormalizeClip()(resize_to_square(frames, size)))


def test_same_seed_same_views_other_seed_others(clip):
    augment = RandAugmentViews(PLAN)
    first, again, other = (augment.set_random_state(seed=seed)(clip) for seed in (3, 3, 4))
    assert_same(first, again, atol=0, rtol=0)
    assert not any(torch.equal(view, another) for view, another in zip(first, other, strict=True))


def test_views_have_their_own_draws_and_their_frames_share_them(clip):
    plan = ViewPlan((4, 4), (), global_size=16)
    augment = RandAugmentViews(plan).set_random_state(seed=0)
    first, second = augment(clip[:, :1].expand(-1, 8, -1, -1))
    assert not torch.equal(first, second)
    for view in (first, second):
        assert (view == view[:, :1]).all()


def test_type_and_device_make_no_difference(clip):
    def views_of(source):
        return RandAugmentViews(PLAN, hue=0.1).set_random_state(seed=1)(source)

    expected = views_of(clip)
    assert_same(views_of(clip / 255), expected)
    assert_same([view.float() for view in views_of(clip.double() / 255)], expected, atol=1e-4, rtol=0)
    assert_same(views_of(clip.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)), expected)  # as readers lay it out
    assert [view.shape for view in views_of(clip.to("meta"))] == [view.shape for view in expected]
    if torch.cuda.is_available():
        assert_same([view.cpu() for view in views_of(clip.cuda())], expected, atol=1e-3, rtol=0)


def share_of(option, probability, is_changed, count=60):
    """Share of each view that ``option`` changes in a clip of noise."""
    noise = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plan = ViewPlan((1,) * 3, (1,), 16, 16, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    augment = RandAugmentViews(plan, **{**NO_CHANGE, option: probability}, mean=(0, 0, 0), std=(1, 1, 1))
    augment.set_random_state(seed=0)
    frames = noise.expand(-1, 4, -1, -1)
    counts = [[is_changed(view, noise) for view in augment(frames)] for _ in range(count)]
    return torch.tensor(counts, dtype=torch.float64).mean(0)


def is_solarized(view, noise):
    return torch.allclose(view, torch.minimum(noise, 1 - noise), atol=1e-5)


def is_smoother(view, noise):
    return view.std() < 0.98 * noise.std()


@pytest.mark.parametrize(
    ("option", "probability", "is_changed", "expected"),
    [
        ("flip_prob", 0.5, lambda view, noise: torch.allclose(view, noise.flip(-1), atol=1e-5), [0.5] * 4),
        ("gray_prob", 1.0, lambda view, noise: torch.allclose(view[0], view[2]), [1] * 4),
        ("jitter_prob", 1.0, lambda view, noise: not torch.allclose(view, noise, atol=1e-3), [1] * 4),
        ("global_blur_prob", (1.0, 0.0), is_smoother, [0.85, 0, 0.85, 0]),  # a sigma below about 0.3 changes nothing
        ("local_blur_prob", 1.0, is_smoother, [0, 0, 0, 0.85]),
        ("global_solarize_prob", (0.0, 1.0), is_solarized, [0, 1, 0, 0]),
    ],
)
def test_probabilities_go_to_their_views(option, probability, is_changed, expected):
    shares = share_of(option, probability, is_changed)
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64), atol=0.15, rtol=0)


def test_wrong_number_of_frames_is_refused(clip):
    with pytest.raises(ValueError, match="`clip` must hold 14 frames, those of the views, found 13"):
        RandAugmentViews(PLAN)(clip[:, 1:])


def test_dictionary_version_takes_the_seed_of_the_item(clip):
    item = {"image": clip, "label": 1, "seed": 11}
    result = RandAugmentViewsd("image", PLAN).set_random_state(seed=5)(item)
    assert result.keys() == {"image", "label", "seed"}
    assert_same(result["image"], RandAugmentViews(PLAN).set_random_state(seed=11)(clip), atol=0, rtol=0)

    del item["seed"]
    result = RandAugmentViewsd("image", PLAN).set_random_state(seed=5)(item)
    assert_same(result["image"], RandAugmentViews(PLAN).set_random_state(seed=5)(clip), atol=0, rtol=0)


def info(frames: int, fps: float = 30.0) -> ClipInfo:
    return ClipInfo(frames, fps, 4, 6, frames / fps)


def test_the_frames_of_all_views_come_one_view_after_the_other():
    random_state = np.random.RandomState(4)
    random_state.randint(1)  # the start of the window, which is the whole clip
    expected = torch.cat(ViewPlan().draw_frames(150, random_state))
    assert torch.equal(ViewPlan()(info(150), {}, np.random.RandomState(4)), expected)
    assert ViewPlan()(info(1), {}, np.random.RandomState(0)).tolist() == [0] * 84


@pytest.mark.parametrize(("fps", "window", "width"), [(30, 8 * 32 / 30, 256), (10, 8 * 32 / 30, 85), (30, 2, 60)])
def test_views_of_a_long_video_lie_in_a_window(fps, window, width):
    plan, random_state = ViewPlan(window=window), np.random.RandomState(0)
    drawn = [plan(info(1000, fps), {}, random_state) for _ in range(200)]
    # the first global view starts the window, the last one ends it
    assert all(frames.max() - frames.min() == width - 1 for frames in drawn)
    starts = [int(frames.min()) for frames in drawn]
    assert min(starts) < 50
    assert max(starts) > 1000 - width - 50


def test_views_are_read_from_a_clip_by_the_seed(tmp_path):
    for index in range(12):
        Image.new("RGB", (6, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")

    def run(seed, plan):
        return Compose([LoadClipd("image", plan)]).set_random_state(seed=seed)({"image": tmp_path, "label": 1})

    assert run(0, ViewPlan((3,), ()))["image"][0, :, 0, 0].tolist() == [0, 6, 11]
    first, again, other = (run(seed, ViewPlan()) for seed in (0, 0, 1))
    assert first.keys() == {"image", "label"}
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
