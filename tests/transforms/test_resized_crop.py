# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from endofm_monai.transforms import RandResizedCropClip
from endofm_monai.transforms.base import resize_to_square
from endofm_monai.transforms.geometry import draw_crop

RATIO = (3 / 4, 4 / 3)


def boxes(frame_size, scale, count=4000, **options):
    random_state = np.random.RandomState(0)
    return np.array([draw_crop(frame_size, scale, RATIO, random_state, **options) for _ in range(count)])


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


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("frame_size", [(1, 1), (2, 3), (1, 50)])
def test_tiny_frames_give_a_box(frame_size, reference):
    _, _, height, width = boxes(frame_size, (0.05, 0.4), count=50, reference=reference).T
    assert min(height.min(), width.min()) >= 1
    assert (height.max() <= frame_size[0]) & (width.max() <= frame_size[1])


@pytest.mark.parametrize(
    ("frame_size", "scale", "published_share"),
    [
        ((256, 256), (0.4, 1.0), 0.21),
        ((256, 320), (0.4, 1.0), 0.32),
        ((256, 341), (0.4, 1.0), 0.39),
        ((256, 456), (0.4, 1.0), 0.68),
        ((256, 320), (0.05, 0.4), 0.0),
    ],
)
def test_reference_boxes_are_cut_as_often_as_the_published_ones(frame_size, scale, published_share):
    class Recorder(np.random.RandomState):
        """Keeps the area and the log-ratio of the last try, which is the one that counts."""

        def uniform(self, low, high):
            self.drawn = [*getattr(self, "drawn", [])[-1:], super().uniform(low, high)]
            return self.drawn[-1]

    random_state = Recorder(0)
    cut = 0
    for _ in range(2000):
        _, _, height, width = draw_crop(frame_size, scale, RATIO, random_state, reference=True)
        share, log_ratio = random_state.drawn
        area = share * frame_size[0] * frame_size[1]
        wanted = round(np.sqrt(area / np.exp(log_ratio))), round(np.sqrt(area * np.exp(log_ratio)))
        cut += (height, width) not in (wanted, (256, 341))  # the latter is the central box, when none of the ten fits
    assert cut / 2000 == pytest.approx(published_share, abs=0.03)


@pytest.mark.parametrize("reference", [False, True])
def test_crop_is_the_resized_box(reference):
    clip = torch.randint(0, 256, (3, 4, 40, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crop = RandResizedCropClip(16, scale=(0.2, 0.6), reference_crop=reference).set_random_state(seed=5)
    top, left, height, width = draw_crop((40, 52), (0.2, 0.6), RATIO, np.random.RandomState(5), reference)
    expected = resize_to_square(clip[..., top : top + height, left : left + width] / 255, 16, reference)
    assert height < 40
    torch.testing.assert_close(crop(clip), expected)
