# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What others read: each format written once, for savers, CVAT and MONAI Label."""

from endofm_monai.formats.annotations import *
from endofm_monai.formats.coco import *
from endofm_monai.formats.cvat_xml import *
from endofm_monai.formats.items import *
from endofm_monai.formats.masks import *
from endofm_monai.formats.writers import *
