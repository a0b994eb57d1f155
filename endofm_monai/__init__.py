# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Endo-FM, the foundation model for endoscopy video, as a MONAI project."""

from endofm_monai import (
    apps,
    data,
    engines,
    handlers,
    inferers,
    losses,
    metrics,
    networks,
    optimizers,
    transforms,
    utils,
    visualize,
    weights,
)
from endofm_monai.registry import register
from endofm_monai.utils.errors import end_with_one_line

__all__ = [
    "apps",
    "data",
    "engines",
    "formats",
    "handlers",
    "inferers",
    "losses",
    "metrics",
    "networks",
    "optimizers",
    "register",
    "transforms",
    "utils",
    "visualize",
    "weights",
]
__version__ = "0.1.0"

register()
end_with_one_line()
