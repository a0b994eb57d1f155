# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.broken_clips import BrokenClipsHandler
from endofm_monai.handlers.gradients import GradientHandler
from endofm_monai.handlers.health import HealthHandler, UnhealthyTrainingError
from endofm_monai.handlers.schedule import ScheduleHandler
from endofm_monai.handlers.teacher_update import TeacherUpdateHandler
from endofm_monai.handlers.training_checkpoint import TrainingCheckpointHandler

__all__ = [
    "BrokenClipsHandler",
    "GradientHandler",
    "HealthHandler",
    "ScheduleHandler",
    "TeacherUpdateHandler",
    "TrainingCheckpointHandler",
    "UnhealthyTrainingError",
]
