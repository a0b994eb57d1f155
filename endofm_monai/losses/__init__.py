# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.losses.spatial_temporal_matching import SpatialTemporalMatchingLoss

__all__ = ["SpatialTemporalMatchingLoss"]
