# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.utils.atomic import TEMPORARY_PREFIX, atomic_path
from endofm_monai.utils.checksum import sha256

__all__ = ["TEMPORARY_PREFIX", "atomic_path", "sha256"]
