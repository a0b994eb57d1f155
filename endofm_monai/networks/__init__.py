# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def unwrap(network: nn.Module) -> Any:
    """The network itself, also when ``DistributedDataParallel`` wraps it."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def freeze_blocks(network: Network, count: int) -> Network:
    """Keep the first ``count`` blocks of a network's ``backbone``, and what comes before them, from learning."""
    backbone: Any = network.backbone
    depth = len(backbone.blocks)
    if count > depth:
        raise ValueError(f"`frozen_blocks` must be at most the backbone's depth {depth}, but got {count}.")
    if count > 0:
        for part in (*backbone.stem(), *backbone.blocks[:count]):
            part.requires_grad_(False)
    return network


def freeze_backbone(network: Network) -> Network:
    """Let only the adapters in a network's ``backbone`` learn, and what is outside of it."""
    network.backbone.freeze()  # type: ignore[operator,union-attr]
    return network
