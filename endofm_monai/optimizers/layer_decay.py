# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from torch import nn

from endofm_monai.networks import unwrap
from endofm_monai.optimizers.weight_decay import POSITIONS_AND_TOKENS, weight_decay_groups

__all__ = ["layer_decay_groups"]


def layer_decay_groups(
    network: nn.Module, learning_rate: float, layer_decay: float = 0.75, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups in which the learning rate falls from the head towards the backbone's first layer.

    Head, decoder and the final normalization learn at ``learning_rate``, the last block at ``layer_decay`` times that,
    the one before at ``layer_decay ** 2``, and patch embedding, class token and positions at the least (Bao et al.,
    "BEiT", 2022, appendix). Weights and biases are separated as in :func:`weight_decay_groups`; frozen parameters
    are left out.

    Args:
        network: a network with a ``backbone``, perhaps in ``DistributedDataParallel``.
        learning_rate: learning rate of the head.
        layer_decay: factor from one layer to the one before, in (0, 1]; with 1 all learn alike.
        weight_decay: weight decay of the weights.

    Returns:
        groups with ``lr``, ``weight_decay``, ``decay`` (see :func:`weight_decay_groups`) and ``lr_scale``, the factor
        that a schedule of the learning rate keeps.

    Raises:
        ValueError: when ``layer_decay`` is out of range.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"`layer_decay` must be in (0, 1], but got {layer_decay}.")
    bare = unwrap(network)
    depth = len(bare.backbone.blocks)
    layer = {parameter: _layer(name, depth) for name, parameter in bare.named_parameters()}
    groups = []
    for group in weight_decay_groups(bare):
        for number in range(depth + 2):
            parameters = [parameter for parameter in group["params"] if layer[parameter] == number]
            scale = layer_decay ** (depth + 1 - number)
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "decay": group["decay"],
                        "weight_decay": weight_decay if group["decay"] else 0.0,
                        "lr": learning_rate * scale,
                        "lr_scale": scale,
                    }
                )
    return groups


def _layer(name: str, depth: int) -> int:
    """0 for the embedding, 1 ... ``depth`` for the blocks, ``depth + 1`` for what comes after them."""
    parts = name.split(".")
    if parts[0] == "backbone" and parts[1] in ("patch_embed", *POSITIONS_AND_TOKENS):
        return 0
    if parts[:2] == ["backbone", "blocks"]:
        return int(parts[2]) + 1
    return depth + 1
