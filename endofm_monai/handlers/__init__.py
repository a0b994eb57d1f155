# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.best_model import BestModelHandler
from endofm_monai.handlers.broken_clips import BrokenClipsHandler
from endofm_monai.handlers.clip_embeddings import ClipEmbeddings, embed_clips
from endofm_monai.handlers.embedding_saver import EmbeddingSaver
from endofm_monai.handlers.gradients import GradientHandler
from endofm_monai.handlers.health import HealthHandler
from endofm_monai.handlers.load_weights import LoadWeightsHandler
from endofm_monai.handlers.picture_handlers import AttentionPictureHandler, ViewsPictureHandler
from endofm_monai.handlers.probe_handler import KNNProbeHandler, ProbeEvaluation
from endofm_monai.handlers.progress import ProgressHandler
from endofm_monai.handlers.schedule import ScheduleHandler
from endofm_monai.handlers.teacher_update import TeacherUpdateHandler
from endofm_monai.handlers.training_checkpoint import TrainingCheckpointHandler
from endofm_monai.handlers.training_log import TrainingLogHandler, UnhealthyTrainingError

__all__ = [
    "AttentionPictureHandler",
    "BestModelHandler",
    "BrokenClipsHandler",
    "ClipEmbeddings",
    "EmbeddingSaver",
    "GradientHandler",
    "HealthHandler",
    "KNNProbeHandler",
    "LoadWeightsHandler",
    "ProbeEvaluation",
    "ProgressHandler",
    "ScheduleHandler",
    "TeacherUpdateHandler",
    "TrainingCheckpointHandler",
    "TrainingLogHandler",
    "UnhealthyTrainingError",
    "ViewsPictureHandler",
    "embed_clips",
]
