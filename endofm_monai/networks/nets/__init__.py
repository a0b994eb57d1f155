# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.nets.endofm import EndoFM, EndoFMFeatures
from endofm_monai.networks.nets.student_teacher import ProjectionNetwork, StudentTeacher

__all__ = ["EndoFM", "EndoFMFeatures", "ProjectionNetwork", "StudentTeacher"]
