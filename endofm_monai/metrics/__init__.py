# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.metrics.bootstrap import bootstrap_interval
from endofm_monai.metrics.probe import knn_probe, linear_probe

__all__ = ["bootstrap_interval", "knn_probe", "linear_probe"]
