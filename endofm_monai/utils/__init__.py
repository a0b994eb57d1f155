# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.utils.compute import *
from endofm_monai.utils.errors import *
from endofm_monai.utils.files import *
from endofm_monai.utils.settings import *
