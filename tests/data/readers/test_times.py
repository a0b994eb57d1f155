# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from endofm_monai.data.readers.times import film_times, mean_step

NAN = float("nan")


@pytest.mark.parametrize(
    ("clock", "times"),
    [
        ([], []),
        ([7.0], [0]),
        ([NAN, NAN, NAN], [0, 0.5, 1]),
        ([5.0, 6.0, 7.0, 9.0], [0, 1, 2, 4]),
        ([NAN, 1.0, NAN, 3.0, NAN], [0, 1, 2, 3, 4]),
        ([0.0, 0.0, 2.0, 2.0, 4.0, 4.0], [0, 1, 2, 3, 4, 5]),
        ([10.0, 11.0, 12.0, 0.5, 1.5, 2.5], [0, 1, 2, 3, 4, 5]),
        ([0.0, 1.0, 2.0, 3.0, 99.0, 100.0, *range(101, 110)], [*range(15)]),
        ([0.0, 0.1, 5.0, 5.1, 9.0], [0, 0.1, 5, 5.1, 9]),
    ],
    ids=["none", "one", "unknown", "variable", "partly", "doubled", "restarted", "paused", "often still"],
)
def test_times_of_a_film(clock: list[float], times: list[float]) -> None:
    np.testing.assert_allclose(film_times(np.array(clock, np.float64), step=0.5), times, atol=1e-9)


def test_mean_step_of_regular_frames_leaves_gaps_out() -> None:
    times = np.delete(np.arange(100) / 25, range(40, 52))
    assert mean_step(times, tail=0.04) == pytest.approx(0.04)
    variable = np.cumsum([0, *[0.1] * 10, *[0.03] * 10])
    assert mean_step(variable, tail=0.03) == pytest.approx(1.33 / 21)
    assert mean_step(np.zeros(1), tail=0.04) == 0.04
