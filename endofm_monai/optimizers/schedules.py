# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from dataclasses import dataclass


@dataclass
class CosineSchedule:
    r"""Linear warm-up, then half a cosine, as a function of the optimizer step.

    With ``warmup`` W and ``total`` N steps the value at step i is linear from ``warmup_start`` to ``start`` for
    i < W, both ends included, and
    :math:`end + \frac12 (start - end)(1 + \cos(\pi (i - W) / (N - W)))` after it, as in the published code: ``end``
    itself is only reached at step N, which the training no longer makes.

    Example::

        >>> schedule = CosineSchedule(start=1.0, end=0.1, warmup_epochs=1)
        >>> [schedule(step, steps_per_epoch=5, epochs=4) for step in (0, 4, 5, 19)]
        [0.0, 1.0, 1.0, 0.10983377...]
    """

    start: float  # value after the warm-up
    end: float  # that the cosine runs to
    warmup_epochs: float = 0  # length of the warm-up; fractions are allowed
    warmup_start: float = 0.0  # first value of the warm-up

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total)
        if step < warmup:
            return self.warmup_start + (self.start - self.warmup_start) * step / max(warmup - 1, 1)
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * progress))


@dataclass
class PolynomialSchedule:
    r"""Linear warm-up, then a power of the share of the training that is left, as a function of the optimizer step.

    With ``warmup`` W and ``total`` N steps the value at step i is ``start * (i + 1) / W`` for i < W and
    :math:`start\,(1 - (i - W) / (N - W))^{power}` after it.
    """

    start: float  # value after the warm-up
    power: float = 0.9  # as published
    warmup_epochs: float = 0  # length of the warm-up; fractions are allowed

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total)
        if step < warmup:
            return self.start * (step + 1) / warmup
        return self.start * (1 - min((step - warmup) / max(total - warmup, 1), 1.0)) ** self.power


@dataclass
class StepSchedule:
    """One value, and from a place in the training on another one, as a function of the optimizer step."""

    start: float  # value up to there
    end: float  # value from there on
    share: float = 0.7  # of the training up to there; as published for VCL

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        return self.start if step < round(self.share * epochs * steps_per_epoch) else self.end
