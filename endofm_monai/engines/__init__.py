# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.engines.clip_evaluator import ClipEvaluator
from endofm_monai.engines.clip_trainer import ClipTrainer
from endofm_monai.engines.prepare_boxes import PrepareKeyFrames, PrepareVideos
from endofm_monai.engines.prepare_views import PrepareViews
from endofm_monai.engines.student_teacher_trainer import StudentTeacherTrainer

__all__ = ["ClipEvaluator", "ClipTrainer", "PrepareKeyFrames", "PrepareVideos", "PrepareViews", "StudentTeacherTrainer"]
