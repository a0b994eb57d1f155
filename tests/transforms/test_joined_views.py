# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.reference import ReferenceAugmentViews
from endofm_monai.transforms import RandAugmentViews, ViewPlan
from endofm_monai.transforms.joined_views import augment_batch

PLAN = ViewPlan((3, 5), (2, 4), global_size=48, local_size=16)
ALWAYS = {"flip_prob": 1.0, "jitter_prob": 1.0, "gray_prob": 1.0, "global_blur_prob": [1.0], "local_blur_prob": 1.0}
NEVER = {**dict.fromkeys([*ALWAYS], 0.0), "global_blur_prob": [0.0], "global_solarize_prob": [0.0]}
SEEDS = range(12)


def make_clips(dtype: torch.dtype = torch.uint8) -> list[torch.Tensor]:
    """Smooth clips with pixels of all values, also such that a resized one leaves their range."""
    generator = torch.Generator().manual_seed(0)
    coarse = [1.6 * torch.rand(3, 14, 6, 7, generator=generator) - 0.3 for _ in SEEDS]
    sizes = [(40 + 3 * seed, 70 - 2 * seed) for seed in SEEDS]
    clips = [F.interpolate(clip, size, mode="bilinear").clamp(0, 1) for clip, size in zip(coarse, sizes, strict=True)]
    return [clip if dtype.is_floating_point else (clip * 255).to(dtype) for clip in clips]


def one_by_one(augment: RandAugmentViews, clips: list[torch.Tensor]) -> list[torch.Tensor]:
    made = [augment.set_random_state(seed)(clip) for seed, clip in zip(SEEDS, clips, strict=True)]
    return [torch.stack(views) for views in zip(*made, strict=True)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        ALWAYS,
        NEVER,
        {**NEVER, "flip_prob": 1.0, "local_blur_prob": 1.0},
        {**NEVER, "global_solarize_prob": [1.0]},
        {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "jitter_prob": 1.0},
    ],
)
def test_joined_views_are_those_of_each_clip(arguments, dtype):
    augment, clips = RandAugmentViews(PLAN, **arguments), make_clips(dtype)
    expected = one_by_one(augment, clips)
    found = augment_batch(augment, clips, SEEDS)
    assert [view.shape[1:] for view in found] == [(3, 3, 48, 48), (3, 5, 48, 48), (3, 2, 16, 16), (3, 4, 16, 16)]
    for view, other in zip(found, expected, strict=True):
        torch.testing.assert_close(view, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("augment", [RandAugmentViews(PLAN, hue=0.1), ReferenceAugmentViews(PLAN)])
def test_what_is_no_product_is_made_clip_by_clip(augment):
    clips = make_clips()
    for view, other in zip(augment_batch(augment, clips, SEEDS), one_by_one(augment, clips), strict=True):
        assert torch.equal(view, other)


def test_frames_of_other_views_are_refused():
    with pytest.raises(ValueError, match="must hold 14 frames, those of the views, found 13"):
        augment_batch(RandAugmentViews(PLAN), [clip[:, 1:] for clip in make_clips()], SEEDS)
