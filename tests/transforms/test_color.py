# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms import RandColorJitterClip, RandGrayscaleClip


@pytest.fixture
def clip():
    return torch.rand(3, 2, 8, 9, generator=torch.Generator().manual_seed(0))


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


def test_reference_color_neither_clips_nor_weighs_as_rgb(clip):
    ours, reference = (
        RandColorJitterClip(0, 0, 1.0, prob=1, reference_color=flag).set_random_state(seed=3) for flag in (False, True)
    )
    result = reference(clip)
    ((_, change),) = reference.changes
    gray = (0.114 * clip[0] + 0.587 * clip[1] + 0.299 * clip[2]).expand_as(clip)
    torch.testing.assert_close(result, clip * (1 + change) - gray * change)
    assert not torch.allclose(ours(clip), result.clamp(0, 1), atol=1e-3)

    bright = RandColorJitterClip(1.0, 0, 0, prob=1, reference_color=True).set_random_state(seed=1)
    assert max(bright(clip).max() for _ in range(10)) > 1.2


@pytest.mark.parametrize(("reference", "weights"), [(False, (0.299, 0.587, 0.114)), (True, (0.114, 0.587, 0.299))])
def test_grayscale_weights(reference, weights):
    primaries = torch.eye(3).view(3, 1, 1, 3)  # a red, a green and a blue pixel
    gray = RandGrayscaleClip(prob=1, reference_color=reference)(primaries)
    torch.testing.assert_close(gray, torch.tensor(weights).expand(3, 1, 1, 3))


@pytest.mark.parametrize(("name", "value"), [("brightness", 1.5), ("contrast", -0.1), ("saturation", 2), ("hue", 0.6)])
def test_strengths_outside_their_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be from 0 to"):
        RandColorJitterClip(**{name: value})
