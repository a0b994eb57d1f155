# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.blocks.detection_head import (
    DetectionHead,
    DetectionPyramid,
    FrameFeatures,
    LocationPredictions,
    SpatialTemporalTransformation,
    split_predictions,
)
from endofm_monai.networks.blocks.divided_space_time import DividedSpaceTimeBlock, SpatialTemporalAdapter
from endofm_monai.networks.blocks.segmentation_decoder import CascadedUpsampler, DetailStem, ResidualStem

__all__ = [
    "CascadedUpsampler", "DetailStem", "DetectionHead", "DetectionPyramid",
    "DividedSpaceTimeBlock", "FrameFeatures", "LocationPredictions", "ResidualStem",
    "SpatialTemporalAdapter", "SpatialTemporalTransformation", "split_predictions",
]  # fmt: skip
