# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Engine, Events

from endofm_monai.optimizers import CosineSchedule

__all__ = ["ScheduleHandler"]


class ScheduleHandler:
    """Sets one number by a schedule before each optimizer step of a :class:`ClipTrainer`.

    The value depends on nothing but the step, so a resumed run goes on with the schedule where it stopped.

    Args:
        target: an optimizer, whose parameter groups get the value (``lr`` times the group's ``lr_scale`` where it has
            one, ``weight_decay`` only where ``decay`` is set), or any object, which gets it as an attribute.
        name: name of the number, for example ``"lr"``.
        schedule: the schedule.
        epochs: length of the schedule; ``max_epochs`` of the trainer by default. Give it where a run is made in
            pieces, so that each piece follows the schedule of the whole.
    """

    def __init__(self, target: Any, name: str, schedule: CosineSchedule, epochs: int | None = None) -> None:
        self.target = target
        self.name = name
        self.schedule = schedule
        self.epochs = epochs

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the value for the present iteration."""
        steps_per_epoch = math.ceil(engine.state.epoch_length / engine.accumulation_steps)
        epoch, iteration = divmod(engine.state.iteration - 1, engine.state.epoch_length)
        step = epoch * steps_per_epoch + iteration // engine.accumulation_steps
        value = self.schedule(step, steps_per_epoch, self.epochs or engine.state.max_epochs)
        if not isinstance(self.target, torch.optim.Optimizer):
            setattr(self.target, self.name, value)
            return
        for group in self.target.param_groups:
            if self.name == "lr":
                group["lr"] = value * group.get("lr_scale", 1.0)
            elif self.name != "weight_decay" or group.get("decay", True):
                group[self.name] = value
