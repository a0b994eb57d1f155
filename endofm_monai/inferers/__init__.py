# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.inferers.bundle import Bundle, BundleError, find_bundles, load_predictor
from endofm_monai.inferers.classification import ClassificationPredictor
from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.detection import (
    ClipDetector,
    DetectionPredictor,
    Detections,
    SelectDetections,
    StreamingDetector,
    VideoDetectionInferer,
    read_blocks,
)
from endofm_monai.inferers.exported import OnnxDetector, OnnxNetwork
from endofm_monai.inferers.frame_models import (
    ClassificationModel,
    DetectionModel,
    FrameModel,
    SegmentationModel,
    open_frame_model,
)
from endofm_monai.inferers.linking import BoxLinker, BoxTrack, link_boxes
from endofm_monai.inferers.predictor import Answer, Predictor
from endofm_monai.inferers.segmentation import MaskInferer, MirrorInferer, SegmentationPredictor, TemporalWindowInferer
from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin

__all__ = [
    "Answer",
    "BoxLinker",
    "BoxTrack",
    "Bundle",
    "BundleError",
    "ClassificationModel",
    "ClassificationPredictor",
    "ClipDetector",
    "CloseUp",
    "DetectionModel",
    "DetectionPredictor",
    "Detections",
    "FrameModel",
    "MaskInferer",
    "MirrorInferer",
    "OnnxDetector",
    "OnnxNetwork",
    "Predictor",
    "SegmentationModel",
    "SegmentationPredictor",
    "SelectDetections",
    "StreamingDetector",
    "TemporalWindowInferer",
    "VideoDetectionInferer",
    "class_entropy",
    "find_bundles",
    "link_boxes",
    "load_predictor",
    "mask_entropy",
    "open_frame_model",
    "read_blocks",
    "score_margin",
]
