# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.transforms import RandScaleCropClip, ScaleCropClip, ScaleCropClipd


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


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (64, 64)])
def test_reference_crop_is_the_first_square_of_the_published_validation(height, width):
    clip = torch.randint(0, 256, (3, 2, height, width), dtype=torch.uint8)
    size = (32, width * 32 // height) if height <= width else (height * 32 // width, 32)
    expected = F.interpolate(clip / 255, size, mode="bilinear", align_corners=False)[..., :32, :32]
    torch.testing.assert_close(ScaleCropClip(32, 40, reference_crop=True)(clip), expected)


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


@pytest.mark.parametrize(("reference", "last"), [(False, 8), (True, 7)])
def test_reference_never_takes_the_last_offset(reference, last):
    crop = RandScaleCropClip(32, (40, 40), reference_crop=reference).set_random_state(seed=0)
    clip = torch.arange(40.0).expand(3, 1, 40, 40) / 40
    offsets = {round(float(crop(clip)[0, 0, 0, 0]) * 40) for _ in range(200)}
    assert offsets == set(range(last + 1))


def test_wrong_sizes():
    with pytest.raises(ValueError, match="`short_side` must rise from `size`=224"):
        RandScaleCropClip(224, (200, 300))
    with pytest.raises(ValueError, match="`short_side` must be at least"):
        ScaleCropClip(224, 200)
