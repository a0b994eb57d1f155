# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.optimizers.parameter_groups import layer_decay_groups, weight_decay_groups
from endofm_monai.optimizers.schedules import CosineSchedule, PolynomialSchedule

__all__ = ["CosineSchedule", "PolynomialSchedule", "layer_decay_groups", "weight_decay_groups"]
