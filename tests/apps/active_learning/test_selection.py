# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endofm_monai.apps.active_learning.selection import clip_windows, k_center, select_frames

WINDOWS = clip_windows({"a": 6, "b": 5}, 3)  # a: 0-2, 3-5; b: 6-8, 9-10
SCORES = [0.1, 0.9, 0.8, 0.3, 0.2, 0.1, 0.7, 0.7, 0.0, 0.4, 0.6]


def angles(*degrees: float) -> np.ndarray:
    return np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def test_windows_do_not_reach_from_one_video_to_another():
    names = [f"{video}{number}" for video, number in WINDOWS]
    assert names == ["a0", "a0", "a0", "a1", "a1", "a1", "b0", "b0", "b0", "b1", "b1"]


def test_the_most_uncertain_frame_of_each_window_comes_first():
    assert select_frames(SCORES, None, 2, WINDOWS)[0] == 1
    assert select_frames(SCORES, None, 2, WINDOWS)[1] in (6, 7)
    assert select_frames(SCORES, None, 9, WINDOWS)[2:] == [10, 3]


def test_windows_with_an_annotated_frame_are_left_out():
    assert select_frames(SCORES, None, 9, WINDOWS, labeled=[0, 8]) == [10, 3]


def test_equal_scores_are_drawn_by_the_seed():
    first = {select_frames([0.0] * 11, None, 1, WINDOWS, seed=seed)[0] for seed in range(40)}
    assert len(first) > 5
    assert select_frames(None, None, 3, WINDOWS, seed=1) == select_frames(None, None, 3, WINDOWS, seed=1)


def test_random_takes_every_frame_equally_often():
    counts = np.zeros(11)
    for seed in range(3000):
        counts[select_frames(None, None, 1, WINDOWS, seed=seed)] += 1
    assert counts.min() > 200  # 273 expected
    assert counts.max() < 350


def test_diversity_goes_to_the_farthest_angle():
    embeddings = angles(0, 2, 4, 90, 91, 92, 170, 180, 175, 45, 46)
    chosen = select_frames(None, embeddings * 5, 2, WINDOWS, labeled=[0])
    assert chosen[0] == 7  # opposite to frame 0
    assert chosen[1] == 3 or chosen[1] == 4


def test_without_annotations_diversity_begins_in_the_middle():
    chosen = k_center(angles(0, 40, 50, 90), 2, range(4), windows=["a", "b", "b", "c"])
    assert chosen[0] in (1, 2)
    assert chosen[1] in (0, 3)
    assert k_center(angles(0, 40, 50, 90), 9, range(4), windows=["a", "b", "b", "c"])[0] == chosen[0]


def test_both_is_diversity_among_the_uncertain():
    windows = list(range(10))
    scores = [0.9, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    embeddings = angles(10, 0, 20, 30, 180, 170, 160, 150, 140, 130)
    assert select_frames(scores, embeddings, 1, windows, labeled=[5]) == [1]  # 180 is farther, but is certain


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_window_is_taken_twice(data):
    windows = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=25))
    number = len(windows)
    labeled = data.draw(st.lists(st.integers(0, number - 1), max_size=3))
    count = data.draw(st.integers(0, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    scores = random.random(number) if data.draw(st.booleans()) else None
    embeddings = random.standard_normal((number, 3)) if data.draw(st.booleans()) else None
    chosen = select_frames(scores, embeddings, count, windows, labeled)
    names = [windows[index] for index in chosen]
    assert len(set(names)) == len(names)
    left = set(windows) - {windows[index] for index in labeled}
    assert set(names) <= left
    assert len(chosen) == min(count, len(left))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": [0.1] * 10, "embeddings": None}, "`scores` must have"),
        ({"scores": [math.nan] * 11, "embeddings": None}, "`scores` must be finite, but row 0 is not"),
        ({"scores": None, "embeddings": np.zeros(11)}, "`embeddings` must have"),
        ({"scores": None, "embeddings": None, "labeled": [11]}, "indices from 0 to 10, but holds 11"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_frames(**arguments, count=1, windows=WINDOWS)
