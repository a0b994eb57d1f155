# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import CenterSpatialCrop
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms import (
    RandAffineClip,
    RandAffineClipd,
    RandResizedCropClip,
    RandScaleCropClip,
    ResizeClip,
    ResizeClipd,
    ScaleCropClip,
    ScaleCropClipd,
)
from endofm_monai.transforms.geometry import draw_crop, resize_to_square

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
    affine = RandAffineClipd("image", 40, mask_keys="label", degrees=45.0, vertical_flip_prob=0.5)
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


RATIO = (3 / 4, 4 / 3)


def boxes(frame_size, scale, count=4000):
    random_state = np.random.RandomState(0)
    return np.array([draw_crop(frame_size, scale, RATIO, random_state) for _ in range(count)])


@pytest.mark.parametrize("frame_size", [(256, 256), (256, 320), (256, 456), (720, 1280)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
def test_boxes_lie_inside_and_keep_area_and_ratio(frame_size, scale):
    top, left, height, width = boxes(frame_size, scale).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= frame_size[0]
    assert (left + width).max() <= frame_size[1]
    area = height * width / np.prod(frame_size)
    assert area.min() > scale[0] * 0.98
    assert area.max() < scale[1] * 1.02
    assert (width / height).min() > RATIO[0] * 0.97
    assert (width / height).max() < RATIO[1] * 1.03


def test_area_is_uniform_and_ratio_log_uniform():
    _, _, height, width = boxes((1000, 1000), (0.05, 0.4)).T
    np.testing.assert_allclose(np.quantile(height * width / 1e6, [0.25, 0.5, 0.75]), [0.1375, 0.225, 0.3125], atol=0.01)
    np.testing.assert_allclose(np.mean(np.log(width / height)), 0, atol=0.01)


@pytest.mark.parametrize(("frame_size", "ratio"), [((100, 400), 4 / 3), ((400, 100), 3 / 4)])
def test_frames_in_which_no_box_fits_give_the_largest_central_one(frame_size, ratio):
    top, left, height, width = draw_crop(frame_size, (0.9, 1.0), RATIO, np.random.RandomState(0))
    assert width / height == pytest.approx(ratio, rel=0.01)
    assert min(height, width) == 100 or max(height, width) == 133
    assert (top, left) == ((frame_size[0] - height) // 2, (frame_size[1] - width) // 2)


@pytest.mark.parametrize("frame_size", [(1, 1), (2, 3), (1, 50)])
def test_tiny_frames_give_a_box(frame_size):
    _, _, height, width = boxes(frame_size, (0.05, 0.4), count=50).T
    assert min(height.min(), width.min()) >= 1
    assert (height.max() <= frame_size[0]) & (width.max() <= frame_size[1])


def test_crop_is_the_resized_box():
    clip = torch.randint(0, 256, (3, 4, 40, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crop = RandResizedCropClip(16, scale=(0.2, 0.6)).set_random_state(seed=5)
    top, left, height, width = draw_crop((40, 52), (0.2, 0.6), RATIO, np.random.RandomState(5))
    expected = resize_to_square(clip[..., top : top + height, left : left + width] / 255, 16)
    assert height < 40
    torch.testing.assert_close(crop(clip), expected)


def ramp(height: int, width: int) -> torch.Tensor:
    """A clip whose first channel is the row and whose second is the column, as shares of 1."""
    rows = torch.linspace(0, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 1, width).expand(height, width)
    return torch.stack([rows, columns, rows])[:, None].repeat(1, 2, 1, 1)


def test_single_square_is_in_the_center():
    clip = ScaleCropClip(32, 40)(ramp(80, 160))
    assert clip.shape == (3, 2, 32, 32)
    assert clip[0].mean().item() == pytest.approx(0.5, abs=0.01)
    assert clip[1].mean().item() == pytest.approx(0.5, abs=0.01)
    assert clip[0].amax().item() == pytest.approx(0.5 + 0.5 * 32 / 40, abs=0.03)


@pytest.mark.parametrize(("height", "width", "along", "across"), [(80, 160, 1, 0), (160, 80, 0, 1)])
def test_several_squares_are_spread_along_the_long_side(height, width, along, across):
    clip, crop = ramp(height, width), ScaleCropClip(40, 40)
    squares = [crop(clip, number, 3) for number in range(3)]
    assert [square[along].mean().item() for square in squares] == pytest.approx([0.25, 0.5, 0.75], abs=0.01)
    assert all(square[across].mean().item() == pytest.approx(0.5, abs=0.01) for square in squares)


def test_dictionary_item_names_its_square():
    crop = ScaleCropClipd("image", size=40, short_side=40)
    item = {"image": ramp(80, 160), "crop": 2, "num_crops": 3}
    assert crop(item)["image"][1].mean().item() == pytest.approx(0.75, abs=0.01)


def test_random_squares_differ_in_size_and_place_and_are_alike_in_all_frames():
    crop = RandScaleCropClip(32, (36, 64)).set_random_state(seed=0)
    squares = [crop(ramp(80, 160)) for _ in range(100)]
    spans = torch.tensor([float(square[0, 0, -1, 0] - square[0, 0, 0, 0]) for square in squares])
    assert spans.min() == pytest.approx(31 / 64, abs=0.03)
    assert spans.max() == pytest.approx(31 / 36, abs=0.03)
    left = torch.tensor([float(square[1, 0, 0, 0]) for square in squares])
    assert left.min() < 0.05
    assert left.max() > 0.6
    assert all(square[:, 0].equal(square[:, 1]) for square in squares)


def test_every_offset_is_drawn():
    crop = RandScaleCropClip(32, (40, 40)).set_random_state(seed=0)
    clip = torch.arange(40.0).expand(3, 1, 40, 40) / 40
    assert {round(float(crop(clip)[0, 0, 0, 0]) * 40) for _ in range(200)} == set(range(9))


def test_wrong_sizes():
    with pytest.raises(ValueError, match="`short_side` must rise from `size`=224"):
        RandScaleCropClip(224, (200, 300))
    with pytest.raises(ValueError, match="`short_side` must be at least"):
        ScaleCropClip(224, 200)


@pytest.mark.parametrize(("height", "width", "expected"), [(36, 48, (18, 24)), (48, 36, (24, 18)), (9, 9, (18, 18))])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resize_keeps_the_ratio_and_the_type(height, width, expected, dtype):
    for shape in ((3, 2, height, width), (2, 3, 2, height, width)):
        resized = ResizeClip(18)(torch.full(shape, 7).to(dtype))
        assert resized.shape == (*shape[:-2], *expected)
        assert resized.dtype == dtype
        assert (resized == 7).all()


def test_resize_then_center_crop():
    clip = torch.randint(0, 256, (3, 2, 36, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = ResizeClipd("image", 18)({"image": clip})["image"]
    assert torch.equal(resized[:, 1], TF.resize(clip[:, 1], [18], antialias=True))
    assert torch.equal(CenterSpatialCrop((-1, 18, 18))(resized), resized[..., 3:21])


def test_shrinking_is_antialiased():
    stripes = torch.zeros(3, 1, 64, 64)
    stripes[..., ::4] = 1
    assert (resize_to_square(stripes, 8)[..., 1:-1] - 0.25).abs().max() < 0.02


def test_resize_clips_the_overshoot():
    edge = torch.zeros(3, 1, 8, 8)
    edge[..., 4:] = 1
    clipped = resize_to_square(edge, 32)
    assert (clipped.min(), clipped.max()) == (0, 1)
