# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from torch import nn

from endofm_monai.networks import unwrap

POSITIONS_AND_TOKENS = ("cls_token", "pos_embed", "time_embed")


def weight_decay_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups of an optimizer; ``decay`` tells which one a weight-decay schedule acts on.

    Biases, normalization weights, the class token and the positional tables are not decayed. Frozen parameters are
    left out.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_free = parameter.ndim == 1 or name.rsplit(".", 1)[-1] in ("bias", *POSITIONS_AND_TOKENS)
            (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "decay": True}, {"params": free, "decay": False, "weight_decay": 0.0}]


def layer_decay_groups(
    network: nn.Module, learning_rate: float, layer_decay: float = 0.75, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups in which the learning rate falls from the head towards the backbone's first layer.

    Head, decoder and the final normalization learn at ``learning_rate``, the last block at ``layer_decay`` times that,
    the one before at ``layer_decay ** 2``, and patch embedding, class token and positions at the least (Bao et al.,
    "BEiT", 2022, appendix). Weights and biases are separated as in :func:`weight_decay_groups`.

    Args:
        network: a network with a ``backbone``, perhaps in ``DistributedDataParallel``.
        learning_rate: learning rate of the head.
        layer_decay: factor from one layer to the one before, in (0, 1]; with 1 all learn alike.
        weight_decay: weight decay of the weights.

    Returns:
        groups with ``lr``, ``weight_decay``, ``decay`` (see :func:`weight_decay_groups`) and ``lr_scale``, the factor
        that a schedule of the learning rate keeps.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"`layer_decay` must be in (0, 1], but got {layer_decay}.")
    bare = unwrap(network)
    depth = len(bare.backbone.blocks)
    layer = {parameter: _layer(name, depth) for name, parameter in bare.named_parameters()}
    groups = []
    for group in weight_decay_groups(bare):
        for number in range(depth + 2):
            scale = layer_decay ** (depth + 1 - number)
            rates = {"lr": learning_rate * scale, "lr_scale": scale}
            if parameters := [parameter for parameter in group["params"] if layer[parameter] == number]:
                groups.append({"weight_decay": weight_decay, **group, "params": parameters, **rates})
    return groups


def _layer(name: str, depth: int) -> int:
    """0 for the embedding, 1 ... ``depth`` for the blocks, ``depth + 1`` for what comes after them."""
    parts = name.split(".")
    if parts[0] == "backbone" and parts[1] in ("patch_embed", *POSITIONS_AND_TOKENS):
        return 0
    return int(parts[2]) + 1 if parts[:2] == ["backbone", "blocks"] else depth + 1
