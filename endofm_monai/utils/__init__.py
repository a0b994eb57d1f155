# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.utils.atomic import TEMPORARY_PREFIX, atomic_path

__all__ = ["TEMPORARY_PREFIX", "atomic_path"]
