# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["unwrap"]


def unwrap(network: nn.Module) -> Any:
    """The network itself, also when ``DistributedDataParallel`` wraps it."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
