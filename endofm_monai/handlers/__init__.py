# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.checkpoint import BestModelHandler, EpochValidationHandler, TrainingCheckpointHandler
from endofm_monai.handlers.classification import ClassificationReport, ProbabilitySaver
from endofm_monai.handlers.embeddings import ClipEmbeddings, EmbeddingSaver, embed_clips
from endofm_monai.handlers.frames import DetectionReport, DetectionSaver, MaskSaver, SegmentationReport
from endofm_monai.handlers.log import (
    ConceptHealthHandler,
    EmbeddingLogHandler,
    HealthHandler,
    ProgressHandler,
    TrainingLogHandler,
    UnhealthyTrainingError,
)
from endofm_monai.handlers.pictures import AttentionPictureHandler, MaskPictureHandler, ViewsPictureHandler
from endofm_monai.handlers.probes import KNNProbeHandler, LearningReport, ProbeEvaluation
from endofm_monai.handlers.training import (
    BrokenClipsHandler,
    ConceptPhaseHandler,
    GradientHandler,
    LoadWeightsHandler,
    ScheduleHandler,
    TeacherUpdateHandler,
    TrainingHandlers,
    ValidationHandlers,
    WeightAverageHandler,
    WeightsCheckpointLoader,
)

__all__ = [
    "AttentionPictureHandler", "BestModelHandler", "BrokenClipsHandler", "ClassificationReport", "ClipEmbeddings",
    "ConceptHealthHandler", "ConceptPhaseHandler", "DetectionReport", "DetectionSaver", "EmbeddingLogHandler",
    "EmbeddingSaver", "EpochValidationHandler", "GradientHandler", "HealthHandler", "KNNProbeHandler",
    "LearningReport", "LoadWeightsHandler", "MaskPictureHandler", "MaskSaver", "ProbabilitySaver",
    "ProbeEvaluation", "ProgressHandler", "ScheduleHandler", "SegmentationReport", "TeacherUpdateHandler",
    "TrainingCheckpointHandler", "TrainingHandlers", "TrainingLogHandler", "UnhealthyTrainingError",
    "ValidationHandlers", "ViewsPictureHandler", "WeightAverageHandler", "WeightsCheckpointLoader", "embed_clips",
]  # fmt: skip
