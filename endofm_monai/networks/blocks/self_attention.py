# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Multi-head self-attention with one packed projection, in the published parameter names.

    The mathematics is that of ``torch.nn.MultiheadAttention``; ``qkv`` and ``proj`` keep the released weights loadable.

    Args:
        embed_dim: width D of a token.
        num_heads: number of heads; must divide ``embed_dim``.

    Raises:
        ValueError: when ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"`embed_dim` must be a multiple of `num_heads`, but got {embed_dim} and {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of tokens ``(B, L, D)``, each ``(B, heads, L, D / heads)``."""
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend among the tokens ``(B, L, D)`` of each sequence; returns ``(B, L, D)``."""
        if x.shape[1] == 1:  # the softmax of one weight is 1
            weight, bias = self.qkv.weight, self.qkv.bias
            first = 2 * x.shape[2]
            return self.proj(F.linear(x, weight[first:], bias[first:]))
        query, key, value = self.project(x)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(x.shape))

    def attend_from_first(self, x: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives for the first token of each sequence, alone: ``(B, 1, D)`` for ``(B, L, D)``."""
        batch, length, width = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(x[:, :1], weight[:width], bias[:width]).reshape(batch, 1, self.num_heads, -1)
        key_value = F.linear(x, weight[width:], bias[width:]).reshape(batch, length, 2, self.num_heads, -1)
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query.transpose(1, 2), key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, 1, width))

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        """Softmax weights among the tokens ``(B, L, D)``; returns ``(B, heads, L, L)``, rows summing to 1."""
        query, key, _ = self.project(x)
        return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
