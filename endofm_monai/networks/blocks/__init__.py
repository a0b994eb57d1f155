# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.blocks.detection_head import (
    DetectionHead,
    DetectionPyramid,
    FrameFeatures,
    LocationPredictions,
    split_predictions,
)
from endofm_monai.networks.blocks.divided_space_time import (
    DividedSpaceTimeBlock,
    SelfAttention,
    resample_grid,
    resample_spatial_encoding,
    resample_temporal_encoding,
)
from endofm_monai.networks.blocks.feature_transformation import SpatialTemporalTransformation
from endofm_monai.networks.blocks.heads import AttentiveHead, ProjectionHead
from endofm_monai.networks.blocks.segmentation_decoder import (
    CascadedUpsampler,
    DetailStem,
    ResidualStem,
    StandardizedConv2d,
)

__all__ = [
    "AttentiveHead",
    "CascadedUpsampler",
    "DetailStem",
    "DetectionHead",
    "DetectionPyramid",
    "DividedSpaceTimeBlock",
    "FrameFeatures",
    "LocationPredictions",
    "ProjectionHead",
    "ResidualStem",
    "SelfAttention",
    "SpatialTemporalTransformation",
    "StandardizedConv2d",
    "resample_grid",
    "resample_spatial_encoding",
    "resample_temporal_encoding",
    "split_predictions",
]
