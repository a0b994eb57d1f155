# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.weights.image_vit import video_from_image
from endofm_monai.weights.initialize import initialize_backbone
from endofm_monai.weights.layouts import PublishedWeights, read_weights
from endofm_monai.weights.load import LoadReport, copy_weights, load_published
from endofm_monai.weights.safe_load import WeightsError

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
