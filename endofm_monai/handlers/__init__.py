# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.checkpoint import BestModelHandler, TrainingCheckpointHandler
from endofm_monai.handlers.classification import ClassificationMetric, ClassificationReport, ClipPredictions
from endofm_monai.handlers.detection import DetectionEvaluation, DetectionSaver, videos_from_engine
from endofm_monai.handlers.embeddings import ClipEmbeddings, EmbeddingSaver, embed_clips
from endofm_monai.handlers.log import HealthHandler, TrainingLogHandler, UnhealthyTrainingError
from endofm_monai.handlers.pictures import AttentionPictureHandler, MaskPictureHandler, ViewsPictureHandler
from endofm_monai.handlers.probes import KNNProbeHandler, ProbeEvaluation
from endofm_monai.handlers.segmentation import MaskSaver, MeanFrameDice, SegmentationEvaluation
from endofm_monai.handlers.training import (
    BrokenClipsHandler,
    GradientHandler,
    LoadWeightsHandler,
    ProgressHandler,
    ScheduleHandler,
    TeacherUpdateHandler,
    WeightAverageHandler,
    WeightsCheckpointLoader,
)
from endofm_monai.handlers.video_results import VideoResults

__all__ = [
    "AttentionPictureHandler",
    "BestModelHandler",
    "BrokenClipsHandler",
    "ClassificationMetric",
    "ClassificationReport",
    "ClipEmbeddings",
    "ClipPredictions",
    "DetectionEvaluation",
    "DetectionSaver",
    "EmbeddingSaver",
    "GradientHandler",
    "HealthHandler",
    "KNNProbeHandler",
    "LoadWeightsHandler",
    "MaskPictureHandler",
    "MaskSaver",
    "MeanFrameDice",
    "ProbeEvaluation",
    "ProgressHandler",
    "ScheduleHandler",
    "SegmentationEvaluation",
    "TeacherUpdateHandler",
    "TrainingCheckpointHandler",
    "TrainingLogHandler",
    "UnhealthyTrainingError",
    "VideoResults",
    "ViewsPictureHandler",
    "WeightAverageHandler",
    "WeightsCheckpointLoader",
    "embed_clips",
    "videos_from_engine",
]
