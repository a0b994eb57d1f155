# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms import NormalizeClip, NormalizeClipd, RandColorJitterClip, RandGrayscaleClip
from endofm_monai.transforms.color import blur_clip, to_grayscale


@pytest.fixture
def clip():
    return torch.rand(3, 2, 24, 31, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_single_change_is_that_of_torchvision_with_a_uniform_factor(name, clip):
    jitter = RandColorJitterClip(**{**dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0), name: 0.3})
    jitter.set_random_state(seed=0)
    changes = []
    for _ in range(300):
        result = jitter(clip)
        if jitter._do_transform:
            ((changed, change),) = jitter.changes
            assert changed == name
            changes.append(change)
            amount = change if name == "hue" else 1 + change
            expected = getattr(TF, f"adjust_{name}")(clip.transpose(0, 1), amount).transpose(0, 1)
            torch.testing.assert_close(result, expected, atol=2e-4, rtol=0)  # torchvision's red weighs 0.2989
    np.testing.assert_allclose(np.quantile(changes, [0, 0.25, 0.5, 0.75, 1]), [-0.3, -0.15, 0, 0.15, 0.3], atol=0.05)


def test_order_is_random(clip):
    jitter = RandColorJitterClip(hue=0.1, prob=1).set_random_state(seed=0)
    orders = set()
    for _ in range(300):
        jitter(clip)
        orders.add(tuple(name for name, _ in jitter.changes))
    assert len(orders) == 24


def test_grayscale_weights():
    primaries = torch.eye(3).view(3, 1, 1, 3)  # a red, a green and a blue pixel
    gray = RandGrayscaleClip(prob=1)(primaries)
    torch.testing.assert_close(gray, torch.tensor([0.299, 0.587, 0.114]).expand(3, 1, 1, 3))


@pytest.mark.parametrize(("name", "value"), [("brightness", 1.5), ("contrast", -0.1), ("saturation", 2), ("hue", 0.6)])
def test_strengths_outside_their_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be from 0 to"):
        RandColorJitterClip(**{name: value})


@pytest.mark.parametrize("name", ["contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_colors_are_those_of_torchvision(name, factor, clip):
    jitter = RandColorJitterClip()
    jitter.changes = [(name, factor - 1)]
    expected = getattr(TF, f"adjust_{name}")(clip.transpose(0, 1), factor).transpose(0, 1)
    torch.testing.assert_close(jitter.apply(clip), expected, atol=2e-4, rtol=0)  # torchvision's red weighs 0.2989


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


def test_normalization_is_that_of_torchvision():
    clip = torch.randint(0, 256, (3, 2, 36, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = TF.normalize(clip.transpose(0, 1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).transpose(0, 1)
    torch.testing.assert_close(NormalizeClip()(clip), expected)
    torch.testing.assert_close(NormalizeClip()(clip / 255), expected)
    torch.testing.assert_close(NormalizeClip()(torch.stack([clip, clip]))[1], expected)
    torch.testing.assert_close(NormalizeClipd("image")({"image": clip, "label": 1})["image"], expected)
