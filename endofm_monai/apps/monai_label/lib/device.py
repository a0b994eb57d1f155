# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monailabel.utils.others.generic import name_to_device

__all__ = ["requested_device"]


def requested_device(request: Mapping[str, Any]) -> torch.device:
    """The ``device`` of a request, by its name in torch or in the lists that MONAI Label shows; else the best one.

    Raises:
        ValueError: when there is no such device.
    """
    try:
        return torch.device(name_to_device(request.get("device")))
    except RuntimeError as error:
        raise ValueError(f"`device`: {error}") from error
