# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.inferers.mirror import MirrorInferer
from endofm_monai.inferers.temporal_window import TemporalWindowInferer

__all__ = ["MirrorInferer", "TemporalWindowInferer"]
