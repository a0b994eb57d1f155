# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.optimizers.schedules import CosineSchedule
from endofm_monai.optimizers.weight_decay import weight_decay_groups

__all__ = ["CosineSchedule", "weight_decay_groups"]
