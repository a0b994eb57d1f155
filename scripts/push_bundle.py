# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Push a bundle to Hugging Face; with ``--dry_run`` only tell what would go.

``python scripts/push_bundle.py shared/endofm_pretraining --repo USER/endofm_pretraining --dry_run``
"""

from endofm_monai.apps.sharing.publish import push_bundle
from endofm_monai.utils import run_from_command_line

if __name__ == "__main__":
    run_from_command_line(push_bundle, serialize=lambda sizes: None)  # which are told already
