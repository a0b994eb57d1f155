# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.inferers.bundle import Bundle, BundleError, OnnxDetector, OnnxNetwork, find_bundles, load_predictor
from endofm_monai.inferers.classification import ClassificationPredictor
from endofm_monai.inferers.detection import BoxLinker, BoxTrack, CloseUp, DetectionPredictor, SelectDetections
from endofm_monai.inferers.predictor import Answer, Predictor
from endofm_monai.inferers.segmentation import MaskInferer, SegmentationPredictor

__all__ = [
    "Answer", "BoxLinker", "BoxTrack", "Bundle", "BundleError", "ClassificationPredictor", "CloseUp",
    "DetectionPredictor", "MaskInferer", "OnnxDetector", "OnnxNetwork", "Predictor", "SegmentationPredictor",
    "SelectDetections", "find_bundles", "load_predictor",
]  # fmt: skip
