# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.engines.evaluator import ClipEvaluator, VideoEvaluator, VideoEvents
from endofm_monai.engines.trainer import (
    ClipTrainer,
    PrepareKeyFrames,
    PrepareViews,
    PretrainingTrainer,
    StudentTeacherTrainer,
)

__all__ = [
    "ClipEvaluator", "ClipTrainer", "PrepareKeyFrames", "PrepareViews", "PretrainingTrainer",
    "StudentTeacherTrainer", "VideoEvaluator", "VideoEvents",
]  # fmt: skip
