# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.weights.layouts import WeightsError, read_weights
from endofm_monai.weights.load import LoadReport, initialize_backbone, load_published
from endofm_monai.weights.save import save_weights

__all__ = ["LoadReport", "WeightsError", "initialize_backbone", "load_published", "read_weights", "save_weights"]
