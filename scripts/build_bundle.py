# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Make of a bundle and trained weights a folder and a zip to share.

``python scripts/build_bundle.py bundle/endofm_pretraining --weights models/model.pt --output shared --preset small``
"""

import fire

from endofm_monai.apps.sharing.build import build_bundle

if __name__ == "__main__":
    fire.Fire(build_bundle)
