# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from endofm_monai.networks.nets import EndoFM
from endofm_monai.visualize import plot_attention

ROWS, COLUMNS = 2, 3  # of patches with 8 x 8 pixels


def overlays(figure) -> list:
    return [axes.images[1] for axes in figure.axes if len(axes.images) == 2]


def peaked(row: int, column: int, frames: int = 2) -> torch.Tensor:
    """Two heads, of which the first looks at one patch, and the second at the class token itself."""
    attention = torch.zeros(frames, 2, 1 + ROWS * COLUMNS, 1 + ROWS * COLUMNS)
    attention[:, 0, 0, 1 + row * COLUMNS + column] = 1
    attention[:, 1, 0, 0] = 1
    attention[:, :, 1:] = torch.rand(attention[:, :, 1:].shape)  # what patches look at does not matter
    return attention


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 1)])
def test_the_heat_is_where_the_class_token_looks(tmp_path, row: int, column: int) -> None:
    figure = plot_attention(torch.zeros(3, 2, 16, 24), peaked(row, column), tmp_path / "attention.png")
    assert len(overlays(figure)) == 2
    for overlay in overlays(figure):
        heat = np.zeros((ROWS, COLUMNS))
        heat[row, column] = 7 / 2  # mean of the heads, times the number of tokens
        np.testing.assert_allclose(overlay.get_array(), heat, rtol=1e-6)
        assert overlay.get_extent() == [-0.5, 23.5, 15.5, -0.5]
        assert overlay.get_clim() == pytest.approx((0, 3.5), rel=0.05)


def test_the_drawn_heat_covers_its_patch(tmp_path) -> None:
    figure = plot_attention(torch.zeros(3, 1, 16, 24), peaked(1, 2, frames=1), tmp_path / "attention.png")
    pixels = imread(tmp_path / "attention.png")[..., :3]
    left, bottom, right, top = overlays(figure)[0].axes.get_window_extent().extents.astype(int)
    inside = 2  # pixels from the white that surrounds the panel, as its edges fall between pixels
    rows = slice(len(pixels) - top + inside, len(pixels) - bottom - inside)
    panel = pixels[rows, left + inside : right - inside].sum(axis=2)
    row, column = np.unravel_index(panel.argmax(), panel.shape)
    assert row > panel.shape[0] / ROWS
    assert column > panel.shape[1] * 2 / COLUMNS


def test_uniform_attention_is_one_and_no_peak(tmp_path) -> None:
    figure = plot_attention(torch.zeros(3, 1, 16, 24), torch.full((1, 3, 7, 7), 1 / 7), tmp_path / "attention.png")
    (overlay,) = overlays(figure)
    np.testing.assert_allclose(overlay.get_array(), 1, rtol=1e-6)
    assert overlay.get_clim() == (0, 2)


def test_attention_of_the_network(tmp_path) -> None:
    backbone = EndoFM(img_size=(16, 24), patch_size=8, num_frames=2, embed_dim=16, depth=1, num_heads=2).eval()
    clip = torch.rand(1, 3, 12, 16, 24)
    figure = plot_attention(clip[0], backbone.attention_maps(clip)[0], tmp_path / "attention.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:8] == [f"frame {number}" for number in (1, 3, 4, 6, 7, 9, 10, 12)]
    assert overlays(figure)[0].get_array().shape == (ROWS, COLUMNS)


@pytest.mark.parametrize(("frames", "tokens"), [(3, 7), (2, 6), (2, 1)])
def test_attention_of_another_clip(tmp_path, frames: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="does not fit 2 frames of 16x24 pixels"):
        plot_attention(torch.zeros(3, 2, 16, 24), torch.ones(frames, 1, tokens, tokens), tmp_path / "attention.png")
