# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.losses.classification import ClassificationLoss
from endofm_monai.losses.concepts import ConceptLoss
from endofm_monai.losses.detection import DetectionLoss
from endofm_monai.losses.spatial_temporal_matching import SpatialTemporalMatchingLoss

__all__ = ["ClassificationLoss", "ConceptLoss", "DetectionLoss", "SpatialTemporalMatchingLoss"]
