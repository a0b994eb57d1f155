# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.engines.evaluator import ClipEvaluator, PrepareKeyFrames, PrepareVideos
from endofm_monai.engines.student_teacher_trainer import PrepareViews, StudentTeacherTrainer
from endofm_monai.engines.trainer import ClipTrainer
from endofm_monai.engines.video_evaluator import VideoEvaluator, VideoEvents

__all__ = [
    "ClipEvaluator", "ClipTrainer", "PrepareKeyFrames", "PrepareVideos", "PrepareViews", "StudentTeacherTrainer",
    "VideoEvaluator", "VideoEvents",
]  # fmt: skip
