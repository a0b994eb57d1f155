# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms.base import (
    BGR_LUMA,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    blur_clip,
    resize_to_square,
    to_float,
    to_grayscale,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_pretraining.json").read_text())["colour"]


@pytest.fixture
def golden_clip():
    generator = np.random.RandomState(zlib.crc32(b"img") & 0xFFFFFFFF)
    frames = (generator.standard_normal((2, 3, 4, 5)) * 0.2 + 0.5).astype(np.float32)  # (T, C, H, W)
    return torch.from_numpy(frames).transpose(0, 1)


@pytest.fixture
def clip():
    return torch.rand(3, 2, 24, 31, generator=torch.Generator().manual_seed(0))


def per_frame(function, clip, *args):
    return function(clip.transpose(0, 1), *args).transpose(0, 1)


def first_channel_of_first_frame(clip):
    return clip[0, 0].flatten().tolist()


def test_published_grayscale(golden_clip):
    gray = to_grayscale(golden_clip, BGR_LUMA)
    assert first_channel_of_first_frame(gray) == pytest.approx(GOLDEN["grayscale_t0c0"], abs=1e-5)


def test_published_contrast(golden_clip):
    changed = adjust_contrast(golden_clip, GOLDEN["contrast_alpha"], BGR_LUMA)
    assert first_channel_of_first_frame(changed) == pytest.approx(GOLDEN["contrast_t0c0"], abs=1e-5)


def test_published_resize(golden_clip):
    resized = resize_to_square(golden_clip, 6, reference=True)
    assert first_channel_of_first_frame(resized) == pytest.approx(GOLDEN["resize_bicubic_t0c0_6x6"], abs=1e-5)


@pytest.mark.parametrize(
    ("ours", "torchvisions"),
    [
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
        (adjust_saturation, TF.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_colors_are_those_of_torchvision_but_for_clipping(ours, torchvisions, factor, clip):
    expected = per_frame(torchvisions, clip, factor)
    torch.testing.assert_close(ours(clip, factor).clamp(0, 1), expected, atol=2e-4, rtol=0)  # its red weighs 0.2989


def test_grayscale_needs_three_channels():
    with pytest.raises(ValueError, match=r"\(3, T, H, W\), found \(1, 2, 4, 4\)"):
        to_grayscale(torch.rand(1, 2, 4, 4))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_that_of_torchvision_away_from_the_border(sigma, clip):
    clip = torch.cat([clip, clip], dim=-2)  # (3, 2, 48, 31)
    expected = TF.gaussian_blur(clip, [17, 17], [sigma, sigma])
    inside = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(blur_clip(clip, sigma)[inside], expected[inside], atol=2e-4, rtol=0)


def test_blur_keeps_an_even_color_up_to_the_border():
    clip = torch.full((3, 2, 9, 40), 0.3)
    torch.testing.assert_close(blur_clip(clip, 2.0), clip)


def test_shrinking_is_antialiased():
    stripes = torch.zeros(3, 1, 64, 64)
    stripes[..., ::4] = 1
    assert (resize_to_square(stripes, 8)[..., 1:-1] - 0.25).abs().max() < 0.02
    assert (resize_to_square(stripes, 8, reference=True) - 0.25).abs().max() > 0.2


def test_resize_clips_the_overshoot_unless_reference():
    edge = torch.zeros(3, 1, 8, 8)
    edge[..., 4:] = 1
    overshoot = resize_to_square(edge, 32, reference=True)
    assert overshoot.min() < -0.01
    assert overshoot.max() > 1.01
    clipped = resize_to_square(edge, 32)
    assert (clipped.min(), clipped.max()) == (0, 1)


def test_to_float():
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(to_float(levels), torch.arange(256) / 255, atol=0, rtol=0)
    double = torch.rand(3, dtype=torch.float64)
    assert to_float(double) is double
    with pytest.raises(TypeError, match=r"uint8.*found torch\.int64"):
        to_float(torch.arange(3))
