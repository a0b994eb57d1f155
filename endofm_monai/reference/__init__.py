# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.reference.metrics import reference_clip_scores
from endofm_monai.reference.optimizers import StepSchedule, double_bias_groups
from endofm_monai.reference.transforms import (
    RandReferenceInput,
    RandReferenceInputd,
    ReferenceBGRClip,
    ReferenceBGRClipd,
)

__all__ = [
    "RandReferenceInput",
    "RandReferenceInputd",
    "ReferenceBGRClip",
    "ReferenceBGRClipd",
    "StepSchedule",
    "double_bias_groups",
    "reference_clip_scores",
]
