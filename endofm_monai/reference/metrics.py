# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.reference.protocol import reference_clip_scores

__all__ = ["reference_clip_scores"]
