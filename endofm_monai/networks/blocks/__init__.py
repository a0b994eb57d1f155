# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.blocks.divided_space_time import DividedSpaceTimeBlock
from endofm_monai.networks.blocks.positional_encoding import resample_spatial_encoding, resample_temporal_encoding
from endofm_monai.networks.blocks.projection_head import ProjectionHead
from endofm_monai.networks.blocks.self_attention import SelfAttention

__all__ = [
    "DividedSpaceTimeBlock",
    "ProjectionHead",
    "SelfAttention",
    "resample_spatial_encoding",
    "resample_temporal_encoding",
]
