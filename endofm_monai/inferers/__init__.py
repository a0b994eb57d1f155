# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.inferers.bundle import Bundle, BundleError, find_bundles
from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.detection import (
    ClipDetector,
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
from endofm_monai.inferers.segmentation import MirrorInferer, TemporalWindowInferer
from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin

__all__ = [
    "BoxLinker",
    "BoxTrack",
    "Bundle",
    "BundleError",
    "ClassificationModel",
    "ClipDetector",
    "CloseUp",
    "DetectionModel",
    "Detections",
    "FrameModel",
    "MirrorInferer",
    "OnnxDetector",
    "OnnxNetwork",
    "SegmentationModel",
    "SelectDetections",
    "StreamingDetector",
    "TemporalWindowInferer",
    "VideoDetectionInferer",
    "class_entropy",
    "find_bundles",
    "link_boxes",
    "mask_entropy",
    "open_frame_model",
    "read_blocks",
    "score_margin",
]
