# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from endofm_monai.data import open_clip
from endofm_monai.preparation.content_area import find_content_area

HEIGHT, WIDTH = 240, 320
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RECTANGLE = (X >= 60) & (X < 300) & (Y >= 16) & (Y < 224)
SHAPES = {
    "full": np.ones((HEIGHT, WIDTH), bool),
    "rectangle": RECTANGLE,
    "octagon": RECTANGLE & (X + Y > 110) & (X + Y < 490) & (X - Y < 250) & (Y - X < 130),
    "circle": (X - 180) ** 2 + (Y - 120) ** 2 < 115**2,
}
CUT_CIRCLE = (X - 180) ** 2 + (Y - 120) ** 2 < 135**2  # the frame cuts it off above and below


def write_scene(folder, mask, border=4, text=True, frames=6, noise=2):
    """Frames of a dark lumen that moves over bright tissue, with a patient's name beside it."""
    rng = np.random.default_rng(0)
    for number in range(frames):
        distance = np.hypot(X - 120 - 20 * number, Y - 120)
        tissue = np.clip(distance * 1.5, 8, 200)[..., None] * np.array([1, 0.6, 0.5])
        image = np.where(mask[..., None], tissue, border) + rng.normal(0, noise, (HEIGHT, WIDTH, 3))
        picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        if text:
            ImageDraw.Draw(picture).text((2, 100), "DOE", fill=(255, 255, 255))
            ImageDraw.Draw(picture).text((4, 226), "1960-01-01", fill=(255, 255, 255))
        picture.save(folder / f"{number}.png")
    return folder


def overlap(area, mask):
    return (area.mask & mask).sum() / (area.mask | mask).sum()


@pytest.mark.parametrize("border", [0, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_recognized_and_text_is_left_out(tmp_path, shape, border):
    with open_clip(write_scene(tmp_path, SHAPES[shape], border, text=shape != "full")) as reader:
        area = find_content_area(reader)
    assert area.shape == shape
    assert overlap(area, SHAPES[shape]) > 0.97
    if shape != "full":
        assert not area.mask[100:112, 2:22].any()
        left, top, right, bottom = area.box
        y, x = np.nonzero(SHAPES[shape])
        np.testing.assert_allclose([left, top, right, bottom], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=3)


def test_a_circle_that_the_frame_cuts_off(tmp_path):
    with open_clip(write_scene(tmp_path, CUT_CIRCLE)) as reader:
        area = find_content_area(reader)
    assert area.shape == "circle"
    assert overlap(area, CUT_CIRCLE) > 0.97


def test_black_frames_have_no_border(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    with open_clip(tmp_path) as reader:
        area = find_content_area(reader)
    assert (area.shape, area.box) == ("full", (0, 0, 64, 48))
