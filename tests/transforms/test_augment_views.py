# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.transforms import NormalizeClip, RandAugmentViews, RandAugmentViewsd, ViewPlan
from endofm_monai.transforms.base import resize_to_square

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
    return torch.randint(0, 256, (3, 9, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def view_frames():
    return [torch.tensor(frames) for frames in ([0, 4, 8], [0, 2, 4, 6, 8], [3, 3], [1, 2, 3, 4])]


def assert_same(views, others, **tolerance):
    for view, other in zip(views, others, strict=True):
        torch.testing.assert_close(view, other, **tolerance)


def test_default_views_have_the_published_shapes(clip):
    plan = ViewPlan()
    views = RandAugmentViews(plan)(clip, [torch.zeros(view.frames, dtype=torch.int64) for view in plan])
    assert [view.shape for view in views] == [(3, view.frames, view.size, view.size) for view in plan]
    assert {view.dtype for view in views} == {torch.float32}


def test_without_changes_views_are_the_resized_frames(clip, view_frames):
    square = clip[..., :30]
    views = RandAugmentViews(WHOLE, **NO_CHANGE)(square, view_frames)
    for view, frames, size in zip(views, view_frames, (24, 24, 16, 16), strict=True):
        torch.testing.assert_close(view, NormalizeClip()(resize_to_square(square[:, frames], size)))


def test_same_seed_same_views_other_seed_others(clip, view_frames):
    augment = RandAugmentViews(PLAN)
    first, again, other = (augment.set_random_state(seed=seed)(clip, view_frames) for seed in (3, 3, 4))
    assert_same(first, again, atol=0, rtol=0)
    assert not any(torch.equal(view, another) for view, another in zip(first, other, strict=True))


def test_views_have_their_own_draws_and_their_frames_share_them(clip):
    plan = ViewPlan((4, 4), (), global_size=16)
    augment = RandAugmentViews(plan).set_random_state(seed=0)
    first, second = augment(clip, [torch.zeros(4, dtype=torch.int64)] * 2)
    assert not torch.equal(first, second)
    for view in (first, second):
        assert (view == view[:, :1]).all()


def test_type_and_device_make_no_difference(clip, view_frames):
    def views_of(source):
        return RandAugmentViews(PLAN, hue=0.1).set_random_state(seed=1)(source, view_frames)

    expected = views_of(clip)
    assert_same(views_of(clip / 255), expected)
    assert_same([view.float() for view in views_of(clip.double() / 255)], expected, atol=1e-4, rtol=0)
    assert_same(views_of(clip.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)), expected)  # as readers lay it out
    assert [view.shape for view in views_of(clip.to("meta"))] == [view.shape for view in expected]
    if torch.cuda.is_available():
        assert_same([view.cpu() for view in views_of(clip.cuda())], expected, atol=1e-3, rtol=0)


def share_of(option, probability, is_changed, count=60, **others):
    """Share of each view that ``option`` changes in a clip of noise."""
    noise = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plan = ViewPlan((1,) * 3, (1,), 16, 16, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    augment = RandAugmentViews(plan, **{**NO_CHANGE, option: probability}, mean=(0, 0, 0), std=(1, 1, 1), **others)
    augment.set_random_state(seed=0)
    frames = [torch.zeros(1, dtype=torch.int64)] * 4
    counts = [[is_changed(view, noise) for view in augment(noise, frames)] for _ in range(count)]
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


@pytest.mark.parametrize(
    ("option", "is_changed"), [("global_blur_prob", is_smoother), ("global_solarize_prob", is_solarized)]
)
def test_reference_neither_blurs_nor_solarizes(option, is_changed):
    assert share_of(option, [1.0], is_changed, count=5, reference_no_blur_solarize=True).max() == 0


def test_reference_color_does_not_clip(clip, view_frames):
    options = {**NO_CHANGE, "jitter_prob": 1.0, "brightness": 1.0, "mean": (0, 0, 0), "std": (1, 1, 1)}
    for reference in (False, True):
        augment = RandAugmentViews(WHOLE, **options, reference_color=reference).set_random_state(seed=0)
        largest = max(view.max() for _ in range(5) for view in augment(clip, view_frames))
        assert largest > 1.1 if reference else largest <= 1


def test_reference_crop_loses_the_ratio(clip, view_frames, monkeypatch):
    from endofm_monai.transforms import views as augment_views

    draws = []
    draw_crop = augment_views.draw_crop
    monkeypatch.setattr(augment_views, "draw_crop", lambda *args: draws.append(draw_crop(*args)) or draws[-1])
    for reference in (False, True):
        draws.clear()
        augment = RandAugmentViews(PLAN, reference_crop=reference).set_random_state(seed=0)
        for _ in range(30):
            augment(clip, view_frames)
        narrow = [width / height for _, _, height, width in draws if not 0.7 < width / height < 1.45]
        assert bool(narrow) == reference


def test_wrong_number_of_views_is_refused(clip, view_frames):
    with pytest.raises(ValueError, match=r"`view_frames` must hold 4 views.*found 3"):
        RandAugmentViews(PLAN)(clip, view_frames[:3])


def test_dictionary_version_takes_the_seed_of_the_item(clip, view_frames):
    item = {"image": clip, "view_frames": view_frames, "label": 1, "seed": 11}
    result = RandAugmentViewsd("image", PLAN).set_random_state(seed=5)(item)
    assert result.keys() == {"image", "label", "seed"}
    assert_same(result["image"], RandAugmentViews(PLAN).set_random_state(seed=11)(clip, view_frames), atol=0, rtol=0)

    del item["seed"]
    result = RandAugmentViewsd("image", PLAN).set_random_state(seed=5)(item)
    assert_same(result["image"], RandAugmentViews(PLAN).set_random_state(seed=5)(clip, view_frames), atol=0, rtol=0)
