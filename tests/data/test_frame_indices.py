# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from endofm_monai.data import linspace_indices


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
