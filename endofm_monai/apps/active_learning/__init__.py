# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.apps.active_learning.selection import clip_windows, k_center, select_frames
from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin

__all__ = ["class_entropy", "clip_windows", "k_center", "mask_entropy", "score_margin", "select_frames"]
