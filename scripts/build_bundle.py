# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Make of a bundle and trained weights a folder and a zip to share.

``python scripts/build_bundle.py bundle/endofm_pretraining --weights models/model.pt --output shared --preset small``
"""

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.utils import run_from_command_line

if __name__ == "__main__":
    run_from_command_line(build_bundle)
