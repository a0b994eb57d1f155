# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.transforms import RandAffineClip, RandAffineClipd

STILL = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "degrees": 0.0, "flip_prob": 0.0}


def blob(height: int = 48, width: int = 64, frames: int = 3) -> torch.Tensor:
    """Masks ``(1, T, H, W)`` of a rectangle that is not in the middle."""
    mask = torch.zeros(1, frames, height, width, dtype=torch.uint8)
    mask[:, :, 8:24, 30:50] = 1
    return mask


def test_without_draws_it_only_resizes():
    clip = torch.randint(0, 256, (3, 2, 48, 64), dtype=torch.uint8)
    same = RandAffineClip((48, 64), **STILL)(clip)
    torch.testing.assert_close(same, clip / 255, atol=1e-5, rtol=0)
    smaller = RandAffineClip(16, **STILL)(clip)
    expected = torch.nn.functional.interpolate(
        (clip / 255).transpose(0, 1), (16, 16), mode="bilinear", antialias=True
    ).transpose(0, 1)
    torch.testing.assert_close(smaller, expected, atol=1e-5, rtol=0)


def test_flips_are_exact():
    clip = torch.rand(3, 2, 32, 32)
    both = {**STILL, "flip_prob": 1.0, "vertical_flip_prob": 1.0}
    torch.testing.assert_close(RandAffineClip(32, **both)(clip), clip.flip(-1, -2), atol=1e-5, rtol=0)


def test_quarter_turn_keeps_angles_in_pixels():
    affine = RandAffineClip((64, 64), **STILL)
    clip = torch.zeros(1, 1, 64, 64)
    clip[..., 10:14, 30:50] = 1
    affine.randomize(clip)
    affine.angle = torch.pi / 2
    turned = affine.apply(clip)
    torch.testing.assert_close(turned, clip.rot90(1, (-2, -1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_masks_go_where_the_picture_goes_in_all_frames_alike(seed):
    mask = blob()
    affine = RandAffineClipd("image", "label", 40, degrees=45.0, vertical_flip_prob=0.5)
    affine.set_random_state(seed=seed)
    result = affine({"image": (mask * 255).repeat(3, 1, 1, 1), "label": mask, "name": "x"})
    assert result["image"].shape == (3, 3, 40, 40)
    assert result["label"].dtype == torch.uint8
    assert set(result["label"].unique().tolist()) <= {0, 1}
    assert ((result["image"][:1] > 0.5) == (result["label"] > 0)).float().mean() > 0.98
    assert (result["label"] == result["label"][:, :1]).all()
    assert (result["image"] == result["image"][:, :1]).all()


def test_same_seed_same_clip_and_another_one_another():
    clip = torch.rand(3, 2, 40, 40)
    first, again, other = (RandAffineClip(32).set_random_state(seed=seed)(clip) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert (first - other).abs().max() > 0.05


def test_outside_of_the_frame_is_black():
    affine = RandAffineClip(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), degrees=0.0, flip_prob=0.0)
    clip = torch.ones(3, 1, 32, 32)
    affine.randomize(clip)
    affine.angle = torch.pi / 4
    turned = affine.apply(clip)
    assert turned[..., 0, 0].max() == 0
    assert turned[..., 16, 16].min() == pytest.approx(1)
