# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.best_model import BestModelHandler
from endofm_monai.handlers.broken_clips import BrokenClipsHandler
from endofm_monai.handlers.classification_metric import ClassificationMetric
from endofm_monai.handlers.classification_report import ClassificationReport
from endofm_monai.handlers.clip_embeddings import ClipEmbeddings, embed_clips
from endofm_monai.handlers.clip_predictions import ClipPredictions
from endofm_monai.handlers.detection_evaluation import DetectionEvaluation, videos_from_engine
from endofm_monai.handlers.detection_saver import DetectionSaver
from endofm_monai.handlers.embedding_saver import EmbeddingSaver
from endofm_monai.handlers.gradients import GradientHandler
from endofm_monai.handlers.health import HealthHandler
from endofm_monai.handlers.load_weights import LoadWeightsHandler, WeightsCheckpointLoader
from endofm_monai.handlers.mask_picture import MaskPictureHandler
from endofm_monai.handlers.mask_saver import MaskSaver
from endofm_monai.handlers.mean_frame_dice import MeanFrameDice
from endofm_monai.handlers.picture_handlers import AttentionPictureHandler, ViewsPictureHandler
from endofm_monai.handlers.probe_handler import KNNProbeHandler, ProbeEvaluation
from endofm_monai.handlers.progress import ProgressHandler
from endofm_monai.handlers.schedule import ScheduleHandler
from endofm_monai.handlers.segmentation_evaluation import SegmentationEvaluation
from endofm_monai.handlers.teacher_update import TeacherUpdateHandler
from endofm_monai.handlers.training_checkpoint import TrainingCheckpointHandler
from endofm_monai.handlers.training_log import TrainingLogHandler, UnhealthyTrainingError
from endofm_monai.handlers.video_results import VideoResults
from endofm_monai.handlers.weight_average import WeightAverageHandler

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
