# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.weights.files import save_weights
from endofm_monai.weights.layouts import WeightsError, read_weights
from endofm_monai.weights.load import LoadReport, initialize_backbone, load_published

__all__ = ["LoadReport", "WeightsError", "initialize_backbone", "load_published", "read_weights", "save_weights"]
