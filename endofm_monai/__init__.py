# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Endo-FM, the foundation model for endoscopy video, as a MONAI project."""

from monai.bundle import ComponentLocator
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils import ensure_tuple

from endofm_monai import apps, data, engines, handlers, inferers, metrics, networks, optimizers  # and what these import
from endofm_monai.utils.errors import end_with_one_line

__all__ = [
    "apps", "data", "engines", "formats", "handlers", "inferers", "losses", "metrics", "networks", "optimizers",
    "register", "transforms", "utils", "visualize", "weights",
]  # fmt: skip
__version__ = "0.1.0"


def register() -> None:
    """Make the package's components known to MONAI by their short names; calling it again changes nothing.

    MONAI resolves a ``_target_`` without a dot among the loaded modules whose names start with
    ``ComponentLocator.MOD_START``; this adds the package there, keeping what others added, and adds the clip reader
    to the readers of ``LoadImage``. Full paths such as ``endofm_monai.networks.nets.EndoFM`` work without it, too.
    """
    prefixes = ensure_tuple(ComponentLocator.MOD_START)
    if __name__ not in prefixes:
        ComponentLocator.MOD_START = (*prefixes, __name__)
    SUPPORTED_READERS["endofmclipreader"] = data.EndoFMClipReader


register()
end_with_one_line()
