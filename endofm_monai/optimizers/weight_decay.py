# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["weight_decay_groups"]

POSITIONS_AND_TOKENS = ("cls_token", "pos_embed", "time_embed")


def weight_decay_groups(network: nn.Module, reference_decay_tokens: bool = False) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer: weights with weight decay, the rest without.

    Biases, normalization weights, the class token and the positional tables are not decayed. Frozen parameters are
    left out.

    Args:
        network: the network to train.
        reference_decay_tokens: decay class token and positional tables too, as the published code does.

    Returns:
        two groups; ``decay`` tells which one a weight-decay schedule acts on.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            token = name.rsplit(".", 1)[-1] in POSITIONS_AND_TOKENS and not reference_decay_tokens
            (free if parameter.ndim == 1 or name.endswith(".bias") or token else decayed).append(parameter)
    return [{"params": decayed, "decay": True}, {"params": free, "decay": False, "weight_decay": 0.0}]
