# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.handlers.checkpoint import *
from endofm_monai.handlers.classification import *
from endofm_monai.handlers.embeddings import *
from endofm_monai.handlers.frames import *
from endofm_monai.handlers.health import *
from endofm_monai.handlers.log import *
from endofm_monai.handlers.pictures import *
from endofm_monai.handlers.probes import *
from endofm_monai.handlers.training import *
