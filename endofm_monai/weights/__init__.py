# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.weights.image_vit import video_from_image
from endofm_monai.weights.layouts import PublishedWeights, WeightsError, read_weights
from endofm_monai.weights.load import LoadReport, copy_weights, initialize_backbone, load_published

__all__ = [
    "LoadReport",
    "PublishedWeights",
    "WeightsError",
    "copy_weights",
    "initialize_backbone",
    "load_published",
    "read_weights",
    "video_from_image",
]
