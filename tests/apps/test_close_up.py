# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.detection import ClipDetector, StreamingDetector
from endofm_monai.networks.blocks import FrameFeatures
from endofm_monai.transforms import FitClip

INPUT = (64, 96)


class BrightBoxes:
    """In place of a detector: the box of all bright pixels, of class 1, with a score of 0.64."""

    device = "cpu"
    nms_threshold = 0.6

    def __init__(self) -> None:
        self.fit = FitClip(INPUT)
        self.normalize = torch.Tensor.float
        self.network = SimpleNamespace(
            encode=lambda clips: [FrameFeatures(*[clips] * 5)],
            head=SimpleNamespace(refine=lambda levels: levels[0].class_features),
        )
        self.select = self
        self.seen: list[torch.Tensor] = []

    def __call__(self, clips: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        assert clips.shape[1:] == (6, 1, *INPUT)  # the part itself is its support
        self.seen += [clip[0, 0] for clip in clips]
        return [boxes_of(clip[0, 0] > 127) for clip in clips]


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
    detector = BrightBoxes()
    left, top, right, bottom = box
    loose = found([[max(left - 3, 0), max(top - 3, 0), min(right + 4, 320), min(bottom + 3, 240)]], [1], [0.25])
    result = CloseUp(detector, share=0.5, max_zoom=20)(make_frame(box), loose)
    torch.testing.assert_close(result["box"], torch.tensor([box], dtype=torch.float32), rtol=0, atol=0.5)
    assert result["label"].tolist() == [1]
    assert result["label_scores"].tolist() == pytest.approx([math.sqrt(0.25 * 0.64)])
    (part,) = detector.seen
    loose_side = (loose["box"][0, 2:] - loose["box"][0, :2]).prod().sqrt()
    side = math.sqrt((right - left) * (bottom - top))
    shown = (part > 127).sum().sqrt() / math.sqrt(INPUT[0] * INPUT[1])
    assert float(shown) == pytest.approx(0.5 * side / float(loose_side), rel=0.1)


def test_what_is_large_or_of_little_score_is_left_alone_and_what_is_not_found_again_goes():
    frame = make_frame((150, 100, 170, 130))
    large, small, lost, late = [10, 10, 250, 220], [148, 98, 172, 133], [20, 20, 40, 40], [250, 30, 270, 50]
    detector = BrightBoxes()
    result = CloseUp(detector, share=0.5, count=2)(
        frame, found([large, small, lost, late], [1, 1, 1, 1], [0.9, 0.8, 0.7, 0.1])
    )
    assert len(detector.seen) == 2
    torch.testing.assert_close(
        result["box"], torch.tensor([large, [150, 100, 170, 130], late]).float(), rtol=0, atol=0.5
    )
    assert result["label_scores"].tolist() == pytest.approx([0.9, math.sqrt(0.8 * 0.64), 0.1])


def test_another_class_is_not_found_again():
    result = CloseUp(BrightBoxes(), share=0.5)(
        make_frame((150, 100, 170, 130)), found([[148, 98, 172, 133]], [2], [0.5])
    )
    assert len(result["box"]) == 0


def test_detections_that_become_the_same_are_joined():
    twice = found([[148, 98, 172, 133], [152, 96, 176, 128]], [1, 1], [0.8, 0.5])
    result = CloseUp(BrightBoxes(), share=0.5)(make_frame((150, 100, 170, 130)), twice)
    assert result["label_scores"].tolist() == pytest.approx([math.sqrt(0.8 * 0.64)])


def test_nothing_detected_stays_nothing():
    result = CloseUp(BrightBoxes(), share=0.5)(make_frame((0, 0, 1, 1)), found([], [], []))
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
    frame_map = CloseUp(BrightBoxes(), share=0.5).part_around(box, (320, 240), zoom)
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
        CloseUp(BrightBoxes(), share)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("block", [1, 5])
def test_streams_look_again_at_each_frame(detector_network, mode, block):
    video = torch.randint(0, 256, (3, 12, 60, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = StreamingDetector(detector_network, FitClip(INPUT), window=3, mode=mode)
    looking = StreamingDetector(detector_network, FitClip(INPUT), window=3, mode=mode, close_up=0.6)
    before, after = (dict(detector.detect(video.split(block, dim=1), "a")) for detector in (plain, looking))
    assert before.keys() == after.keys() == set(range(12))
    changed = 0
    for index, detections in after.items():
        expected = looking.close_up(video[:, index : index + 1], before[index])
        for name, value in expected.items():
            torch.testing.assert_close(detections[name], value, rtol=1e-4, atol=1e-3)
        changed += not torch.equal(detections["box"], before[index]["box"])
    assert changed > 0
    assert not looking._due_frames


def test_an_image_is_looked_at_again(detector_network):
    image = torch.randint(0, 256, (3, 60, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (plain,), (looked,) = (
        ClipDetector(detector_network, FitClip(INPUT), close_up=share)([image]) for share in (None, 0.6)
    )
    assert not torch.equal(plain["box"][:3], looked["box"][:3])
