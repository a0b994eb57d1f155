# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0
"""Every quirk of the published code: what overlays ``reference*.json`` and golden tests name."""

from endofm_monai.reference.protocol import *
from endofm_monai.reference.transforms import *
