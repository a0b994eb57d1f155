# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from endofm_monai.data import ClipInfo, SupportSampler, WindowPlan, linspace_indices, sample_videos


@pytest.mark.parametrize(
    ("span", "count", "frames", "expected"),
    [
        # index lists of the published code
        ((0, 145), 8, 150, [0, 20, 41, 62, 82, 103, 124, 145]),
        ((5, 150), 16, 150, [5, 14, 24, 34, 43, 53, 63, 72, 82, 92, 101, 111, 121, 130, 140, 149]),
        ((66, 84), 4, 150, [66, 72, 78, 84]),
        ((77, 95), 16, 150, [77, 78, 79, 80, 81, 83, 84, 85, 86, 87, 89, 90, 91, 92, 93, 95]),
        ((0, 255), 8, 300, [0, 36, 72, 109, 145, 182, 218, 255]),
        ((0, 255), 8, 150, [0, 36, 72, 109, 145, 149, 149, 149]),
        ((0, 255), 8, 100, [0, 36, 72, 99, 99, 99, 99, 99]),
        # borders
        ((-5, 1), 3, 1, [0, 0, 0]),
        ((0, 2), 6, 3, [0, 0, 0, 1, 1, 2]),
        ((4, 9), 1, 10, [4]),
    ],
)
def test_indices(span: tuple[int, int], count: int, frames: int, expected: list[int]) -> None:
    assert linspace_indices(*span, count, frames).tolist() == expected


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


def test_fixed_number_of_clips_a_video():
    clips = sample_videos([{"image": "a"}, {"image": "b"}], num_windows=2, num_crops=3)
    assert [(clip["image"], clip["window"], clip["crop"]) for clip in clips[:7]] == [
        *(("a", window, crop) for window in (0, 1) for crop in (0, 1, 2)),
        ("b", 0, 0),
    ]
    assert {(clip["num_windows"], clip["num_crops"]) for clip in clips} == {(2, 3)}
    with pytest.raises(ValueError, match="must be positive, found 0 and 1"):
        sample_videos([], num_windows=0)


def draw(sampler: SupportSampler, frames: int, key: int, seed: int = 0) -> list[int]:
    """What a training item reads."""
    info = ClipInfo(frames, 30.0, 8, 8, frames / 30)
    return sampler(info, {"frame_index": key}, np.random.RandomState(seed)).tolist()


def test_supports_depend_on_the_seed_and_the_frame_alone():
    sampler = SupportSampler(10, 9, seed=3)
    assert sampler.supports(40, 100) == sampler.supports(40, 50)
    assert sampler.supports(40, 100) != SupportSampler(10, 9, seed=4).supports(40, 100)
    random = np.random.default_rng([3, 40])
    before, after = random.permutation(np.arange(31, 40))[:5], random.permutation(np.arange(41, 50))[:5]
    assert sampler.supports(40, 100) == [*before, *after]


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_supports_are_frames_about_the_key_frame_and_none_twice(mode, index):
    supports = SupportSampler(4, 3, mode).supports(index, 12)
    near = [frame for frame in range(12) if 0 < abs(frame - index) <= 3 and (mode == "offline" or frame < index)]
    assert len(set(supports)) == len(supports) == min(4, len(near) or 1)
    assert set(supports) <= set(near or [index])


def test_a_key_frame_comes_first_and_has_all_its_supports():
    sampler = SupportSampler(num_supports=3, window=4)
    assert draw(sampler, 1, 0) == [0, 0, 0, 0]
    assert draw(sampler, 2, 1) == [1, 0, 0, 0]
    assert draw(sampler, 12, 5, seed=1) == draw(sampler, 12, 5, seed=1)
    drawn = [draw(sampler, 12, 5, seed) for seed in range(40)]
    assert {indices[0] for indices in drawn} == {5}
    assert {support for indices in drawn for support in indices[1:]} == {1, 2, 3, 4, 6, 7, 8, 9}
    assert all(sum(support < 5 for support in indices[1:]) == 1 for indices in drawn)
