# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import pytest

from endofm_monai.data import ClipInfo, WindowPlan


def info(frames: int, fps: float = 30) -> ClipInfo:
    return ClipInfo(frames, fps, 240, 320, frames / fps)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (300, [0, 36, 72, 109, 145, 182, 218, 255]),
        (150, [0, 21, 42, 63, 85, 106, 127, 149]),
        (5, [0, 0, 1, 1, 2, 2, 3, 4]),
        (1, [0] * 8),
    ],
)
def test_short_video_is_used_whole(frames, expected):
    plan = WindowPlan()
    assert plan.indices(info(frames), 0).tolist() == expected
    assert plan.length(info(frames)) == min(frames, 256)
    assert plan.count(info(frames)) == (2 if frames == 300 else 1)


def test_window_lasts_as_long_at_every_frame_rate():
    seconds = [int(WindowPlan().indices(info(10_000, fps), 0)[-1]) / fps for fps in (10, 25, 30, 60)]
    assert max(seconds) - min(seconds) < 0.15  # a frame and a bit at 10 frames per second


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("frames", [256, 257, 512, 513, 5000])
def test_windows_cover_the_video(frames, overlap):
    plan, video = WindowPlan(), info(frames)
    count = plan.count(video, overlap)
    starts = [plan.start(video, window, count) for window in range(count)]
    steps = [after - before for before, after in pairwise(starts)]
    assert starts[0] == 0
    assert starts[-1] + plan.length(video) == frames
    assert all(0 < step <= 256 * (1 - overlap) for step in steps)
    assert count <= frames / (256 * (1 - overlap)) + 1
    assert all(plan.indices(video, start).max() < frames for start in starts)


def test_single_window_begins_with_the_video():
    assert WindowPlan().start(info(1000), 0, 1) == 0


@pytest.mark.parametrize("wrong", [{"num_frames": 0}, {"sampling_rate": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        WindowPlan(**wrong)
