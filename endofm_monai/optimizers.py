# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from endofm_monai.networks import unwrap

POSITIONS_AND_TOKENS = ("cls_token", "storage_tokens", "pos_embed", "time_embed")


def weight_decay_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups of an optimizer; ``decay`` tells which one a weight-decay schedule acts on.

    Biases, normalization weights, class token and positional tables do not decay; frozen parameters are left out.
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
    "BEiT", 2022, appendix). Weights and biases are separated as in :func:`weight_decay_groups`. The groups also have
    ``lr_scale``, the factor that a schedule of the learning rate keeps.

    Args:
        network: a network with a ``backbone``, perhaps in ``DistributedDataParallel``.
        learning_rate: that of the head.
        layer_decay: factor from one layer to the one before, in (0, 1]; with 1 all learn alike.
        weight_decay: that of the weights.
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
    if parts[0] == "backbone" and parts[1] in ("patch_embed", "norm_pre", *POSITIONS_AND_TOKENS):
        return 0
    return int(parts[2]) + 1 if parts[:2] == ["backbone", "blocks"] else depth + 1


@dataclass
class CosineSchedule:
    r"""Linear warm-up, then half a cosine, as a function of the optimizer step.

    With W steps of warm-up and N in total the value at step i is linear from ``warmup_start`` to ``start`` for i < W,
    both ends included, and :math:`end + \frac12 (start - end)(1 + \cos(\pi (i - W) / (N - W)))` after it, as in the
    published code: ``end`` itself is only reached at step N, which the training no longer makes.
    """

    start: float  # value after the warm-up
    end: float  # that the cosine runs to
    warmup_epochs: float = 0  # length of the warm-up; fractions are allowed
    warmup_start: float = 0.0  # first value of the warm-up

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total)
        if step < warmup:
            return self.warmup_start + (self.start - self.warmup_start) * step / max(warmup - 1, 1)
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * progress))


@dataclass
class PolynomialSchedule:
    r"""Linear warm-up, then a power of the share of the training that is left, as a function of the optimizer step.

    With W steps of warm-up and N in total the value at step i is ``start * (i + 1) / W`` for i < W and
    :math:`start\,(1 - (i - W) / (N - W))^{power}` after it.
    """

    start: float  # value after the warm-up
    power: float = 0.9  # as published
    warmup_epochs: float = 0  # length of the warm-up; fractions are allowed

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total)
        if step < warmup:
            return self.start * (step + 1) / warmup
        return self.start * (1 - min((step - warmup) / max(total - warmup, 1), 1.0)) ** self.power


@dataclass
class StepSchedule:
    """One value, and from a place in the training on another one, as a function of the optimizer step."""

    start: float  # value up to there
    end: float  # value from there on
    share: float = 0.7  # of the training up to there; as published for VCL

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Value at the optimizer step ``step``, counted from 0, of a training of ``epochs * steps_per_epoch``."""
        return self.start if step < round(self.share * epochs * steps_per_epoch) else self.end
