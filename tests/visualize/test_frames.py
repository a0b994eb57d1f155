# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from endofm_monai.visualize import draw_boxes, overlay_mask, plot_masks


def test_mask_is_translucent_with_a_solid_contour():
    frame, mask = np.full((20, 30, 3), 100, np.uint8), np.zeros((20, 30), bool)
    mask[5:15, 5:15] = True
    drawn = overlay_mask(frame, mask, color=(200, 0, 100), opacity=0.5)
    assert drawn[10, 10].tolist() == [150, 50, 100]
    assert drawn[5, 10].tolist() == drawn[10, 14].tolist() == [200, 0, 100]
    assert (drawn[~mask] == 100).all()
    assert (frame == 100).all()


def test_no_foreground_leaves_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay_mask(frame, np.zeros((8, 8), int)), frame)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"\(8, 9\)"):
        overlay_mask(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), bool))


def test_plot_has_a_row_for_each_mask(tmp_path):
    frames = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    mask = torch.zeros(3, 32, 32)
    mask[:, 8:20, 8:20] = 1
    figure = plot_masks(frames, mask, torch.zeros_like(mask), tmp_path / "masks.png", [0, 5, 9])
    assert len(figure.axes) == 3 * 4
    assert [axes.get_title() for axes in figure.axes[:3]] == ["frame 1", "frame 6", "frame 10"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["image", "truth", "prediction", "difference"]
    assert (tmp_path / "masks.png").stat().st_size > 1000
    image, truth, prediction, difference = (axes.images[0].get_array() for axes in figure.axes[::3])
    assert (image == truth).all()
    assert prediction[14, 14, 2] > prediction[14, 14, 0]
    assert difference[14, 14, 0] > difference[14, 14, 1]  # all of the prediction is in excess


def test_a_box_of_one_pixel_is_drawn():
    box = torch.tensor([[0.3, 0.3, 1.3, 1.3]])  # in float32 its width is less than 1
    drawn = draw_boxes(np.zeros((20, 20, 3), np.uint8), box, torch.tensor([1]), torch.tensor([0.5]), ["polyp"])
    assert drawn[:2, :2].any()
