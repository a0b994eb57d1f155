# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np

__all__ = ["film_times", "mean_step"]

# Of a clock with steps of 40 ms, one of more than a second is a pause of the recorder, if there are few of them.
_PAUSE_STEPS, _PAUSE_SECONDS, _PAUSE_SHARE = 10, 1.0, 0.1

# Of a constant rate, containers round the steps; if nearly all are alike, others stand for frames that are lost.
_REGULAR_STEP, _REGULAR_SHARE = 0.25, 0.9


def film_times(clock: np.ndarray, step: float) -> np.ndarray:
    """Give the times of the frames of a film, from what a clock said while it was recorded.

    Variable frame rates stay as they are. A clock that is not known, or stands still, runs evenly between the times
    that are; one that jumps back, or ahead by a pause of the recorder, goes on by its median step instead.

    Args:
        clock: float64 ``(frames,)``, seconds in the order of the frames; NaN where it is not known.
        step: seconds between frames, where the clock tells nothing.

    Returns:
        float64 ``(frames,)``, seconds from the first frame, strictly rising.
    """
    moves = np.concatenate([[True], np.diff(clock) != 0])
    known = np.flatnonzero(np.isfinite(clock) & moves)
    steps = np.diff(clock[known]) / np.diff(known)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else step
    pauses = steps > max(_PAUSE_STEPS * usual, _PAUSE_SECONDS)
    if pauses.sum() > _PAUSE_SHARE * len(steps):
        pauses[:] = False
    steps[pauses | (steps <= 0)] = usual
    every = np.full(max(len(clock) - 1, 0), usual)
    if len(known):
        every[known[0] : known[-1]] = np.repeat(steps, np.diff(known))
    return np.concatenate([[0.0], every.cumsum()])[: len(clock)]


def mean_step(times: np.ndarray, tail: float) -> float:
    """Give the seconds a frame takes on the mean; where frames were lost, the steps across the gaps do not count.

    Args:
        times: float64 ``(frames,)``, as :func:`film_times` gives them.
        tail: how long the last frame is shown.
    """
    steps = np.diff(times)
    if not len(steps):
        return tail
    usual = float(np.median(steps))
    regular = np.abs(steps - usual) <= _REGULAR_STEP * usual
    if regular.mean() >= _REGULAR_SHARE:
        return float(steps[regular].mean())
    return float(times[-1] + min(tail, _PAUSE_STEPS * usual)) / len(times)
