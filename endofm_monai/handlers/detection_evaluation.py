# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from monai.utils import CommonKeys

__all__ = ["videos_from_engine"]


def videos_from_engine(output: dict[str, Any]) -> tuple[list, list]:
    """Detections and items of the videos in an evaluator's output, for ``IgniteMetricHandler``."""
    return output[CommonKeys.PRED], output[CommonKeys.LABEL]
