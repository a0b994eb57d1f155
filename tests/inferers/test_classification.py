# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_clip import MemoryClip, noise
from torch import nn

from endofm_monai.data import WindowPlan
from endofm_monai.inferers import ClassificationPredictor
from endofm_monai.transforms import NormalizeClip, ScaleCropClip

PLAN, CROP = WindowPlan(3, 4), ScaleCropClip(16, 20)  # 3 frames over 12 frames at 30 per second


class Brightness(nn.Module):
    """Classifies clips by how bright they are, and notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        bright = 10 * x.mean(dim=(1, 2, 3, 4))
        return torch.stack([bright, -bright], dim=1)


def make(**options: Any) -> ClassificationPredictor:
    return ClassificationPredictor(Brightness(), PLAN, CROP, NormalizeClip(), **options)


def expected(clip: torch.Tensor, frames: torch.Tensor, crops: int = 1) -> torch.Tensor:
    squares = [NormalizeClip()(CROP(clip[:, frames], crop, crops)) for crop in range(crops)]
    return Brightness()(torch.stack(squares)).softmax(dim=1).mean(dim=0)


@pytest.mark.parametrize(("overlap", "crops", "windows"), [(0.0, 1, 6), (0.5, 3, 10)])
def test_windows_cover_the_video_and_decode_only_their_frames(overlap, crops, windows):
    predictor, clip = make(overlap=overlap, num_crops=crops, batch_size=6), noise(61)
    reader = MemoryClip(clip)
    pieces = list(predictor.pieces(reader))
    assert len(pieces) == windows
    wanted = sorted({int(frame) for _, answer in pieces for frame in answer["frames"]})
    assert reader.decoded == wanted  # each once, forward
    assert wanted[0] == 0
    assert wanted[-1] == 60
    for window, answer in pieces:
        assert torch.equal(window, clip[:, answer["frames"]])
        torch.testing.assert_close(answer["probabilities"], expected(clip, answer["frames"], crops))
    assert sum(predictor.network.sizes) == windows * crops
    assert max(predictor.network.sizes) <= 6


def test_a_number_of_windows_that_is_asked_for_is_evenly_spread():
    frames = [answer["frames"].tolist() for _, answer in make(num_windows=3).pieces(MemoryClip(noise(61)))]
    assert frames == [[0, 5, 11], [24, 29, 35], [49, 54, 60]]
    alike = [answer["frames"].tolist() for _, answer in make(num_windows=2).pieces(MemoryClip(noise(1)))]
    assert alike == [[0, 0, 0]]


def test_a_frame_has_the_mean_of_the_windows_that_hold_it():
    predictor, clip = make(overlap=0.5), noise(24)
    windows = {int(a["frames"][0]): a["probabilities"] for _, a in predictor.pieces(MemoryClip(clip))}
    assert list(windows) == [0, 6, 12]
    answers = [answer["probabilities"] for _, answer in predictor(MemoryClip(clip))]
    torch.testing.assert_close(answers[3], windows[0])
    torch.testing.assert_close(answers[8], (windows[0] + windows[6]) / 2)
    torch.testing.assert_close(answers[23], windows[12])


def test_online_a_window_ends_with_the_frame():
    clip = noise(20)
    answers = [answer["probabilities"] for _, answer in make(mode="online")(MemoryClip(clip, fps=15.0))]
    torch.testing.assert_close(answers[12], expected(clip, torch.tensor([7, 9, 12])))  # 6 frames at 15 per second
    torch.testing.assert_close(answers[1], expected(clip, torch.tensor([0, 0, 1])))


def test_classes_that_do_not_exclude_each_other():
    (_, answer), *_ = make(multi_label=True).pieces(MemoryClip(noise(3)))
    logits = Brightness()(NormalizeClip()(CROP(noise(3)[:, answer["frames"]]))[None])[0]
    torch.testing.assert_close(answer["probabilities"], logits.sigmoid())


def test_uncertainty_is_the_entropy_of_the_classes():
    several, one = make(multi_label=True), make()
    rows = ((one, [1 / 3] * 3, 1.0), (one, [1.0, 0, 0], 0.0), (one, [0.5, 0.5, 0], 0.63093))
    rows += ((several, [0.5, 1.0], 0.5), (several, [0.0, 1.0], 0.0), (several, [0.25, 0.25], 0.81128))
    for predictor, probabilities, uncertainty in rows:
        found = predictor.uncertainty({"probabilities": torch.tensor(probabilities)})
        assert found == pytest.approx(uncertainty, rel=1e-4, abs=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"`overlap` must be in \[0, 1\)"):
        make(overlap=1.0)
    with pytest.raises(ValueError, match="`num_windows` and `num_crops` must be positive"):
        make(num_crops=0)
    predictor = make()
    with pytest.raises(ValueError, match="Offline the length of a video must be known"):
        predictor.push(noise(1))
