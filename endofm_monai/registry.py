# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from monai.bundle import ComponentLocator
from monai.utils import ensure_tuple

PACKAGE = "endofm_monai"


def register() -> None:
    """Make the package's components known to MONAI by their short names.

    MONAI resolves a ``_target_`` without a dot among the loaded modules whose names start with
    ``ComponentLocator.MOD_START``; this adds the package there, keeping what others added, and adds the clip reader
    to the readers of ``LoadImage``. ``import endofm_monai`` calls it; calling it again changes nothing. Full paths
    such as ``endofm_monai.networks.nets.EndoFM`` work with or without it.
    """
    from endofm_monai.data import register_readers

    prefixes = ensure_tuple(ComponentLocator.MOD_START)
    if PACKAGE not in prefixes:
        ComponentLocator.MOD_START = (*prefixes, PACKAGE)
    register_readers()
