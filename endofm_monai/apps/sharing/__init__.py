# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.apps.sharing.export import EXPORTED_NAMES, export_network, load_network
from endofm_monai.apps.sharing.listing import add_to_listing, bundle_versions, check_large_files, write_large_files
from endofm_monai.apps.sharing.model_card import fill_model_card
from endofm_monai.apps.sharing.push import push_bundle

__all__ = [
    "EXPORTED_NAMES",
    "add_to_listing",
    "build_bundle",
    "bundle_versions",
    "check_large_files",
    "export_network",
    "fill_model_card",
    "load_network",
    "push_bundle",
    "write_large_files",
]
