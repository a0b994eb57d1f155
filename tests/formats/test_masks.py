# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_fill_holes

from endofm_monai.formats.masks import (
    decode_runs,
    draw_polygon,
    encode_runs,
    mask_from_points,
    mask_points,
    mask_polygons,
)

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def test_runs_begin_with_the_background():
    assert encode_runs(np.array([1, 1, 0, 1])) == [0, 2, 1, 1]
    assert encode_runs(np.array([0, 0, 1])) == [2, 1]
    assert decode_runs([0, 2, 1, 1]).tolist() == [True, True, False, True]


def test_points_of_a_mask_are_those_of_cvat():
    mask = np.zeros((6, 9), bool)
    mask[2, 3:5] = mask[3, 4] = True
    assert mask_points(mask) == [3, 2, 2, 2, 0, 2, 1, 1]


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_points_hold_every_pixel(mask):
    if mask.any():
        np.testing.assert_array_equal(mask_from_points(mask_points(mask), *mask.shape), mask)


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_polygons_hold_every_pixel_but_holes(mask):
    drawn = np.zeros_like(mask)
    for outline in mask_polygons(mask):
        drawn |= draw_polygon(outline, *mask.shape)
    filled = binary_fill_holes(mask, structure=np.ones((3, 3)))
    assert (drawn >= mask).all()
    assert (drawn <= binary_fill_holes(mask)).all()
    assert (filled <= drawn).all()


def test_pixels_are_drawn_where_their_center_is_inside():
    drawn = draw_polygon([1, 2, 4, 2, 4, 5, 1, 5], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(drawn, expected)


def test_a_simpler_outline_is_near_and_specks_are_left_out():
    rows, columns = np.mgrid[:60, :80]
    mask = (rows - 30) ** 2 + (columns - 40) ** 2 < 20**2
    mask[0, 0] = True
    (outline,) = mask_polygons(mask, tolerance=1.0, min_area=2)
    assert 12 < len(outline) < 60
    drawn = draw_polygon(outline, 60, 80)
    assert (drawn ^ mask).sum() < 0.05 * mask.sum()
