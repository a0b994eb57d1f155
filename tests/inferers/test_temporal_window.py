# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.inferers import TemporalWindowInferer


class Recorder:
    """A network that returns its input and notes how long it was."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        self.lengths.append(clip.shape[2])
        return clip + 0.0


@pytest.mark.parametrize(
    ("frames", "window", "stride", "lengths"),
    [(5, 8, 4, [5]), (8, 8, 4, [8]), (16, 8, 4, [8] * 3), (17, 8, 4, [8] * 4), (12, 6, 2, [6] * 4), (9, 3, 3, [3] * 3)],
)
def test_windows_cover_the_clip_at_the_stride(frames, window, stride, lengths):
    clip, network = torch.rand(1, 2, frames, 4, 6), Recorder()
    torch.testing.assert_close(TemporalWindowInferer(window, stride)(clip, network), clip)
    assert network.lengths == lengths


def test_a_frame_gets_the_mean_of_its_windows():
    def position(clip: torch.Tensor) -> torch.Tensor:
        return torch.arange(4.0).view(1, 1, 4, 1, 1).repeat(clip.shape[0], 1, 1, 2, 2)

    result = TemporalWindowInferer(4, 2, batch_size=3)(torch.zeros(1, 3, 8, 2, 2), position)
    assert result[0, 0, :, 0, 0].tolist() == [0, 1, 1, 2, 1, 2, 2, 3]


@pytest.mark.parametrize("stride", [0, 9])
def test_stride_must_leave_no_gap(stride):
    with pytest.raises(ValueError, match="`stride` must be from 1 to `window`=8"):
        TemporalWindowInferer(8, stride)
