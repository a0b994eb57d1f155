# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.datalist import *
from endofm_monai.data.dataset import *
from endofm_monai.data.labels import *
from endofm_monai.data.masks import *
from endofm_monai.data.readers import *
from endofm_monai.data.sampling import *
