# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.transforms.color import *
from endofm_monai.transforms.fit_frame import *
from endofm_monai.transforms.geometry import *
from endofm_monai.transforms.load import *
from endofm_monai.transforms.views import *
