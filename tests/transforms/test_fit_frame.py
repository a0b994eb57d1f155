# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.box_utils import clip_boxes_to_image
from monai.utils import set_determinism

from endofm_monai.transforms import FitClip, RandFitClip, RandFitClipd
from endofm_monai.transforms.fit_frame import FrameMap, move_boxes

SIDE = st.integers(20, 90)


def block_clip(height: int, width: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    """A clip of one frame that is white inside ``box``."""
    clip = torch.zeros(3, 1, height, width)
    clip[:, :, box[1] : box[3], box[0] : box[2]] = 1
    return clip


def extent(clip: torch.Tensor) -> list[float]:
    """Sides of the white area: where brightness passes one half, to a part of a pixel."""
    sides: list[list[float]] = []
    for axis in (0, 1):
        line = clip[0, 0].amax(dim=axis).numpy()
        line = np.concatenate([[0], line, [0]])
        inside = np.flatnonzero(line > 0.5)
        first, last = inside[0], inside[-1]
        low = first - 0.5 - (line[first] - 0.5) / max(line[first] - line[first - 1], 1e-6)
        high = last - 0.5 + (line[last] - 0.5) / max(line[last] - line[last + 1], 1e-6)
        sides.append([low, high])
    return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]


@settings(max_examples=30, deadline=None)
@given(height=SIDE, width=SIDE, rows=SIDE, columns=SIDE, data=st.data())
def test_boxes_follow_the_pixels(height, width, rows, columns, data):
    x1, y1 = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    box = (x1, y1, data.draw(st.integers(x1 + 10, width)), data.draw(st.integers(y1 + 10, height)))
    transform = RandFitClip((rows, columns), zoom=(0.9, 0.9), stretch=1.5, turn_prob=0.5)
    transform.set_random_state(data.draw(st.integers(0, 99)))
    clip = transform(block_clip(height, width, box))
    assert clip.shape == (3, 1, rows, columns)
    moved, _ = clip_boxes_to_image(
        transform.frame_map.apply(torch.tensor([box], dtype=torch.float32)), (columns, rows), remove_empty=False
    )
    moved = moved[0]
    if (moved[2:] - moved[:2]).min() > 4:
        np.testing.assert_allclose(extent(clip), moved.numpy(), atol=1.0)


@settings(max_examples=50, deadline=None)
@given(
    zoom=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)),
    shift=st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
    size=st.tuples(SIDE, SIDE),
    flips=st.sampled_from([(), (0,), (1,), (0, 1)]),
    swap_axes=st.booleans(),
)
def test_restore_is_the_inverse_of_apply(zoom, shift, size, flips, swap_axes):
    frame_map = FrameMap(zoom, shift, size, flips, swap_axes=swap_axes)
    boxes = torch.tensor([[1.0, 2.0, 30.5, 40.25], [-5.0, 3.0, 7.0, 9.0]])
    torch.testing.assert_close(frame_map.restore(frame_map.apply(boxes)), boxes, rtol=1e-4, atol=1e-3)
    assert (frame_map.apply(boxes)[:, 2:] > frame_map.apply(boxes)[:, :2]).all()
    assert frame_map.apply(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(288, 384), (480, 560), (100, 400), (64, 48)])
def test_fit_keeps_the_ratio_and_pads_with_black(height, width):
    clip = FitClip((96, 128))(torch.full((3, 2, height, width), 255, dtype=torch.uint8))
    assert clip.shape == (3, 2, 96, 128)
    assert clip.dtype == torch.uint8
    scale = min(96 / height, 128 / width)
    rows, columns = round(height * scale), round(width * scale)
    assert (clip[:, :, :rows, :columns] == 255).all()
    assert clip.sum() == 255 * 6 * rows * columns


def test_turned_wide_boxes_are_tall():
    transform = RandFitClip((50, 100), zoom=(1, 1), turn_prob=1, flip_prob=0, vertical_flip_prob=0)
    clip = transform.set_random_state(0)(block_clip(50, 100, (20, 10, 60, 20)))
    (left, top), scale = transform.frame_map.shift, 0.5  # 100 rows fit into 50
    box = transform.frame_map.apply(torch.tensor([[20.0, 10.0, 60.0, 20.0]]))
    torch.testing.assert_close(box[0], torch.tensor([10.0, 20.0, 20.0, 60.0]) * scale + torch.tensor([left, top] * 2))
    np.testing.assert_allclose(extent(clip), box[0].numpy(), atol=1.0)


def test_stretch_changes_the_ratio_within_its_limits_to_both_sides():
    transform = RandFitClip(100, zoom=(1, 1), stretch=1.5)
    ratios = []
    for seed in range(40):
        transform.set_random_state(seed).randomize(torch.zeros(3, 1, 100, 100))
        ratios.append(transform.frame_map.zoom[0] / transform.frame_map.zoom[1])
    assert 1 / 1.52 < min(ratios) < 0.75
    assert 1.33 < max(ratios) < 1.52
    with pytest.raises(ValueError, match=r"`stretch` must be at least 1, found 0\.5"):
        RandFitClip(100, stretch=0.5)


def test_dictionary_moves_the_boxes_of_each_frame():
    set_determinism(0)
    item = {
        "image": torch.zeros(3, 2, 50, 100),
        "box": [torch.tensor([[10.0, 5.0, 30.0, 25.0]]), torch.zeros(0, 4)],
        "box_label": [torch.tensor([2]), torch.zeros(0, dtype=torch.long)],
        "video": "a",
    }
    mirrored = RandFitClipd("image", (50, 100), zoom=(1, 1), flip_prob=1, vertical_flip_prob=1)(item)
    torch.testing.assert_close(mirrored["box"][0], torch.tensor([[70.0, 25.0, 90.0, 45.0]]))
    assert mirrored["box"][1].shape == (0, 4)
    assert [label.tolist() for label in mirrored["box_label"]] == [[2], []]
    assert mirrored["video"] == "a"
    assert item["box"][0].tolist() == [[10, 5, 30, 25]]


def test_boxes_beyond_the_frame_are_clipped_or_go():
    boxes = torch.tensor([[-20.0, -5.0, 10.0, 30.0], [200.0, 5.0, 230.0, 20.0], [90.0, 40.0, 99.5, 49.0]])
    labels = torch.tensor([1, 2, 1])
    shifted = FrameMap((1.0, 1.0), (5.0, 0.0), (100, 50))  # the last box keeps about half of its area
    kept, label = move_boxes(boxes, labels, shifted, (100, 50))
    torch.testing.assert_close(kept, torch.tensor([[5.0, 0.0, 15.0, 30.0], [95.0, 40.0, 100.0, 49.0]]))
    assert label.tolist() == [1, 1]
    kept, label = move_boxes(boxes[2:], labels[2:], FrameMap((1.0, 1.0), (8.0, 0.0), (100, 50)), (100, 50))
    assert len(kept) == len(label) == 0
