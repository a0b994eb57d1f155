# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_clip import MemoryClip, noise

from endofm_monai.inferers import CloseUp, DetectionPredictor
from endofm_monai.transforms import FitClip, NormalizeClip

INPUT = (64, 96)


class BrightBoxes:
    """In place of a detector: the box of all bright pixels, of class 1, with a score of 0.64."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, frames: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        assert frames.shape[1:] == (3, 1, *INPUT)
        self.seen += [frame[0, 0] for frame in frames]
        return [boxes_of(frame[0, 0] > 127) for frame in frames]


def close_up(share: float = 0.5, **options: float) -> CloseUp:
    return CloseUp(BrightBoxes(), FitClip(INPUT), share, **options)


def boxes_of(bright: torch.Tensor) -> dict[str, torch.Tensor]:
    rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
    if len(rows) == 0:
        return found([], [], [])
    return found([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], [1], [0.64])


def found(box: list, label: list, scores: list) -> dict[str, torch.Tensor]:
    return {
        "box": torch.tensor(box, dtype=torch.float32).reshape(-1, 4),
        "label": torch.tensor(label, dtype=torch.long),
        "label_scores": torch.tensor(scores, dtype=torch.float32),
    }


def make_frame(box: tuple[int, int, int, int], height: int = 240, width: int = 320) -> torch.Tensor:
    frame = torch.zeros(3, 1, height, width, dtype=torch.uint8)
    frame[:, :, box[1] : box[3], box[0] : box[2]] = 255
    return frame


@pytest.mark.parametrize("box", [(150, 100, 170, 130), (0, 0, 24, 20), (296, 222, 320, 240)])
def test_a_small_detection_is_found_again_with_an_exact_box(box):
    left, top, right, bottom = box
    loose = found([[max(left - 3, 0), max(top - 3, 0), min(right + 4, 320), min(bottom + 3, 240)]], [1], [0.25])
    look = close_up(max_zoom=20)
    result = look(make_frame(box), loose)
    torch.testing.assert_close(result["box"], torch.tensor([box], dtype=torch.float32), rtol=0, atol=0.5)
    assert result["label"].tolist() == [1]
    assert result["label_scores"].tolist() == pytest.approx([math.sqrt(0.25 * 0.64)])
    (part,) = look.detect.seen
    loose_side = (loose["box"][0, 2:] - loose["box"][0, :2]).prod().sqrt()
    side = math.sqrt((right - left) * (bottom - top))
    shown = (part > 127).sum().sqrt() / math.sqrt(INPUT[0] * INPUT[1])
    assert float(shown) == pytest.approx(0.5 * side / float(loose_side), rel=0.1)


def test_what_is_large_or_of_little_score_is_left_alone_and_what_is_not_found_again_goes():
    frame = make_frame((150, 100, 170, 130))
    large, small, lost, late = [10, 10, 250, 220], [148, 98, 172, 133], [20, 20, 40, 40], [250, 30, 270, 50]
    look = close_up(count=2)
    result = look(frame, found([large, small, lost, late], [1, 1, 1, 1], [0.9, 0.8, 0.7, 0.1]))
    assert len(look.detect.seen) == 2
    torch.testing.assert_close(
        result["box"], torch.tensor([large, [150, 100, 170, 130], late]).float(), rtol=0, atol=0.5
    )
    assert result["label_scores"].tolist() == pytest.approx([0.9, math.sqrt(0.8 * 0.64), 0.1])


def test_another_class_is_not_found_again():
    result = close_up()(make_frame((150, 100, 170, 130)), found([[148, 98, 172, 133]], [2], [0.5]))
    assert len(result["box"]) == 0


def test_detections_that_become_the_same_are_joined():
    twice = found([[148, 98, 172, 133], [152, 96, 176, 128]], [1, 1], [0.8, 0.5])
    result = close_up()(make_frame((150, 100, 170, 130)), twice)
    assert result["label_scores"].tolist() == pytest.approx([math.sqrt(0.8 * 0.64)])


def test_nothing_detected_stays_nothing():
    result = close_up()(make_frame((0, 0, 1, 1)), found([], [], []))
    assert {name: value.shape for name, value in result.items()} == {"box": (0, 4), "label": (0,), "label_scores": (0,)}


@given(
    left=st.floats(0, 280),
    top=st.floats(0, 200),
    width=st.floats(4, 40),
    height=st.floats(4, 40),
    zoom=st.floats(0.3, 2),
)
def test_the_part_shows_the_box_and_nothing_beyond_the_frame(left, top, width, height, zoom):
    box = torch.tensor([left, top, left + width, top + height])
    frame_map = close_up().part_around(box, (320, 240), zoom)
    shown = frame_map.apply(box[None])[0]
    scale = torch.tensor(frame_map.size * 2) + 1.0
    if width * zoom < INPUT[1] and height * zoom < INPUT[0]:
        assert (shown >= -1).all()
        assert (shown <= scale).all()
    for size, side, shift in zip(frame_map.size, (320, 240), frame_map.shift, strict=True):
        enlarged = round(side * zoom)
        if enlarged >= size:
            assert size - enlarged <= shift <= 0
        else:
            assert 0 <= shift <= size - enlarged
    torch.testing.assert_close(frame_map.restore(shown[None])[0], box, rtol=0, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_is_none_is_an_error(share):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        close_up(share)


@pytest.mark.parametrize("block", [1, 5])
def test_predictors_look_again_at_each_frame(detector_network, block):
    def normalize(clip: torch.Tensor) -> torch.Tensor:
        return NormalizeClip()(clip).double()

    video, changed = noise(12, 60, 100), 0
    plain, looking = (
        DetectionPredictor(detector_network, FitClip(INPUT), normalize, close_up=share, block=block)
        for share in (None, 0.6)
    )
    runs = [plain(MemoryClip(video)), looking(MemoryClip(video))]
    for (frame, before), (_, after) in zip(*runs, strict=True):
        with looking.computing():
            expected = looking.close_up(frame.unsqueeze(1), before)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-3)
        changed += not torch.equal(after["box"], before["box"])
    assert changed > 0
