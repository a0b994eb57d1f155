# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endofm_monai.preparation import clip_ranges


@pytest.mark.parametrize(
    ("frames", "remainder", "ranges"),
    [
        (149, "merge", [(0, 148)]),
        (149, "drop", [(0, 148)]),
        (149, "keep", [(0, 148)]),
        (150, "merge", [(0, 149)]),
        (299, "merge", [(0, 298)]),
        (299, "keep", [(0, 149), (150, 298)]),
        (299, "drop", [(0, 149)]),
        (400, "merge", [(0, 149), (150, 399)]),
        (450, "keep", [(0, 149), (150, 299), (300, 449)]),
    ],
)
def test_clips_of_the_published_length(frames, remainder, ranges):
    assert clip_ranges(frames, 150, remainder) == ranges


@given(frames=st.integers(1, 5000), length=st.integers(1, 400), remainder=st.sampled_from(["merge", "keep", "drop"]))
def test_ranges_follow_one_another(frames, length, remainder):
    ranges = clip_ranges(frames, length, remainder)
    assert ranges[0][0] == 0
    assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(ranges))
    assert all(first <= last for first, last in ranges)
    assert ranges[-1][1] == frames - 1 or (remainder == "drop" and frames - 1 - ranges[-1][1] < length)
    assert len(ranges) == max(1, frames // length) or (remainder == "keep" and len(ranges) == -(-frames // length))


def test_a_whole_video():
    assert clip_ranges(1234, None) == [(0, 1233)]
