# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.blocks.attentive_head import AttentiveHead
from endofm_monai.networks.blocks.cascaded_upsampler import CascadedUpsampler
from endofm_monai.networks.blocks.detail_stem import DetailStem
from endofm_monai.networks.blocks.detection_head import (
    DetectionHead,
    FrameFeatures,
    LocationPredictions,
    split_predictions,
)
from endofm_monai.networks.blocks.detection_pyramid import DetectionPyramid
from endofm_monai.networks.blocks.divided_space_time import DividedSpaceTimeBlock
from endofm_monai.networks.blocks.feature_transformation import SpatialTemporalTransformation
from endofm_monai.networks.blocks.positional_encoding import (
    resample_grid,
    resample_spatial_encoding,
    resample_temporal_encoding,
)
from endofm_monai.networks.blocks.projection_head import ProjectionHead
from endofm_monai.networks.blocks.residual_stem import ResidualStem, StandardizedConv2d
from endofm_monai.networks.blocks.self_attention import SelfAttention

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
