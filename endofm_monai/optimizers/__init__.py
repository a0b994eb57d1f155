# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.optimizers.parameter_groups import layer_decay_groups, weight_decay_groups
from endofm_monai.optimizers.schedules import CosineSchedule, PolynomialSchedule, StepSchedule

__all__ = ["CosineSchedule", "PolynomialSchedule", "StepSchedule", "layer_decay_groups", "weight_decay_groups"]
