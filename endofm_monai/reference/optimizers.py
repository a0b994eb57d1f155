# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["StepSchedule", "double_bias_groups"]


class StepSchedule:
    """Linear warm-up, then a factor at each of some steps, as the published detection has it.

    Unlike the other schedules it counts optimizer steps, whatever the length of an epoch.

    Args:
        start: value after the warm-up.
        milestones: steps, counted from 0, from which on the value is multiplied by ``gamma`` once more.
        gamma: the factor.
        warmup_steps: length of the warm-up.
        warmup_factor: share of ``start`` with which the warm-up begins.

    Example::

        >>> schedule = StepSchedule(start=0.0025)
        >>> [schedule(step) for step in (0, 8000, 64000)]
        [0.0008333333333333333, 0.0025, 0.00125]
    """

    def __init__(
        self,
        start: float,
        milestones: Sequence[int] = (64000, 80000, 88000),
        gamma: float = 0.5,
        warmup_steps: int = 8000,
        warmup_factor: float = 1 / 3,
    ) -> None:
        self.start = start
        self.milestones = milestones
        self.gamma = gamma
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor

    def __call__(self, step: int, steps_per_epoch: int = 0, epochs: int = 0) -> float:
        """Value at the optimizer step ``step``, counted from 0."""
        warm = min(step / max(self.warmup_steps, 1), 1.0)
        passed = sum(milestone <= step for milestone in self.milestones)
        return self.start * (self.warmup_factor + (1 - self.warmup_factor) * warm) * self.gamma**passed


def double_bias_groups(network: nn.Module, learning_rate: float, weight_decay: float = 1e-4) -> list[dict[str, Any]]:
    """Parameter groups of the published detection: biases learn twice as fast and do not decay, all else decays.

    Returns:
        groups with ``lr``, ``weight_decay``, and ``lr_scale``, the factor that a schedule of the learning rate keeps.
    """
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    return [
        {
            "params": [parameter for name, parameter in learning.items() if ("bias" in name) == is_bias],
            "lr": learning_rate * scale,
            "lr_scale": scale,
            "weight_decay": decay,
        }
        for is_bias, scale, decay in ((False, 1.0, weight_decay), (True, 2.0, 0.0))
    ]
