# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.apps.sharing.build import build_bundle, fill_model_card
from endofm_monai.apps.sharing.export import export_network
from endofm_monai.apps.sharing.publish import bundle_versions, check_large_files, push_bundle

__all__ = ["build_bundle", "bundle_versions", "check_large_files", "export_network", "fill_model_card", "push_bundle"]
