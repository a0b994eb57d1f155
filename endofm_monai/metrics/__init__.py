# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.metrics.bootstrap import bootstrap_interval, bootstrap_intervals
from endofm_monai.metrics.classification import calibration_error, classification_scores
from endofm_monai.metrics.detection import (
    DetectionFrame,
    DetectionMetric,
    average_precision,
    best_threshold,
    box_scores,
    center_scores,
    polyp_scores,
    presence_scores,
)
from endofm_monai.metrics.probe import knn_probe, linear_probe
from endofm_monai.metrics.segmentation import (
    SegmentationScores,
    enhanced_alignment,
    frame_scores,
    structure_measure,
    weighted_f_measure,
)

__all__ = [
    "DetectionFrame",
    "DetectionMetric",
    "SegmentationScores",
    "average_precision",
    "best_threshold",
    "bootstrap_interval",
    "bootstrap_intervals",
    "box_scores",
    "calibration_error",
    "center_scores",
    "classification_scores",
    "enhanced_alignment",
    "frame_scores",
    "knn_probe",
    "linear_probe",
    "polyp_scores",
    "presence_scores",
    "structure_measure",
    "weighted_f_measure",
]
