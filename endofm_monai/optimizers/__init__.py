# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.optimizers.layer_decay import layer_decay_groups
from endofm_monai.optimizers.reference_detection import StepSchedule, double_bias_groups
from endofm_monai.optimizers.schedules import CosineSchedule, PolynomialSchedule
from endofm_monai.optimizers.weight_decay import weight_decay_groups

__all__ = [
    "CosineSchedule",
    "PolynomialSchedule",
    "StepSchedule",
    "double_bias_groups",
    "layer_decay_groups",
    "weight_decay_groups",
]
