# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.readers.base import *
from endofm_monai.data.readers.dicom import *
from endofm_monai.data.readers.images import *
from endofm_monai.data.readers.nifti import *
from endofm_monai.data.readers.opener import *
from endofm_monai.data.readers.video import *
