# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.metrics.classification import bootstrap_intervals, calibration_error, classification_scores
from endofm_monai.metrics.detection import DetectionFrame, average_precision, detection_report
from endofm_monai.metrics.probe import knn_probe, linear_probe, retrieval
from endofm_monai.metrics.segmentation import frame_scores, segmentation_report

__all__ = [
    "DetectionFrame", "average_precision", "bootstrap_intervals", "calibration_error",
    "classification_scores", "detection_report", "frame_scores", "knn_probe", "linear_probe", "retrieval",
    "segmentation_report",
]  # fmt: skip
