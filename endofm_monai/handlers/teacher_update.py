# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from endofm_monai.networks import unwrap

__all__ = ["TeacherUpdateHandler"]


class TeacherUpdateHandler:
    """Moves the teacher towards the student after each optimizer step (paper, section 2.2).

    The momentum is the network's ``teacher_momentum``, usually driven by a :class:`ScheduleHandler`.
    """

    def attach(self, engine: Engine) -> None:
        """Register the handler with a :class:`StudentTeacherTrainer`."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: unwrap(engine.network).update_teacher())
