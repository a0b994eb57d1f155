# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import binary_fill_holes

from endofm_monai.formats import outlines_from_masks, write_masks
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


def test_the_outline_is_the_outer_one_also_where_a_hole_has_more_corners():
    mask = np.pad(np.ones((24, 24), bool), 2)
    mask[4, 4:24] = mask[4:24, 4:24:2] = False  # a comb
    (outline,) = mask_polygons(mask)
    assert draw_polygon(outline, *mask.shape).sum() == 24 * 24


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


def test_outlines_of_masks_are_their_regions(tmp_path):
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, 2:9, 3:12] = masks[0, 15:18, 20:29] = masks[2, 5, 5] = 255
    masks[0, 4, 5] = 0  # a hole
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / f"{index}.png")
    first, second, third = outlines_from_masks([tmp_path / f"{index}.png" for index in range(3)], label=2)
    assert [outline["mask"][:4] for outline in first] == [[3, 2, 9, 7], [20, 15, 9, 3]]
    assert second == []
    assert third == [{"label": 2, "mask": [5, 5, 1, 1, 0, 1]}]


def test_polygons_and_masks_become_one_mask(tmp_path):
    outlines = [
        {"label": 1, "polygon": [2, 1, 6, 1, 6, 4, 2, 4]},
        {"label": 2, "mask": [0, 0, 2, 1, 0, 2]},
    ]
    item = write_masks({"image": "a.mp4", "video": "a", "outline": [outlines, []]}, tmp_path, "m", 6, 8)
    assert item["mask"] == ["m/000000.png", "m/000001.png"]
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:6] = expected[0, :2] = 255
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m/000000.png")), expected)
    assert not np.asarray(Image.open(tmp_path / "m/000001.png")).any()


@pytest.mark.parametrize("polygon", [[10, 1, 14, 1, 14, 4], [2.1, 1.1, 2.3, 1.1, 2.3, 1.3]])
def test_an_outline_without_a_pixel_does_not_make_a_frame_a_negative(tmp_path, polygon):
    item = {"image": "a.mp4", "video": "a", "outline": [[], [{"label": 1, "polygon": polygon}]]}
    with pytest.raises(ValueError, match="a: the polygon in frame 1 has no pixel of its 8x6"):
        write_masks(item, tmp_path, "m", 6, 8)
    for image, where in (("a.mp4#frames=10-11", "frame 11"), (["b/7.png", "b/8.png"], "8")):  # as CVAT has them
        with pytest.raises(ValueError, match=f"a: the polygon in {where} has no pixel"):
            write_masks({**item, "image": image}, tmp_path, "m", 6, 8)


def test_frames_of_one_name_are_refused(tmp_path):
    item = {"image": ["a/1.png", "b/1.png"], "video": "v", "outline": [[], []]}
    with pytest.raises(ValueError, match="v: has two frames of one name"):
        write_masks(item, tmp_path, "m", 6, 8)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("image", [["a/1.png"], "a", "a#frames=0-0"])
def test_masks_replace_no_images(tmp_path, image):
    with pytest.raises(ValueError, match="a: holds the images of v, which masks would replace"):
        write_masks({"image": image, "video": "v", "outline": [[]]}, tmp_path, "./b/../a", 6, 8)
    assert not (tmp_path / "a").exists()
