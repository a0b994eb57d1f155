# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict

import torch
from torch import nn

from endofm_monai.networks.blocks.adapter import SpatialTemporalAdapter
from endofm_monai.networks.blocks.divided_space_time import SelfAttention


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give ``x * sigmoid(1.702 x)``."""
        return x * torch.sigmoid(1.702 * x)


class FrameBlock(nn.Module):
    """Block of an image ViT, on frames that each have a class token, with adapters between the frames' patches.

    Args:
        embed_dim: width D of a token.
        num_heads: number of attention heads; must divide D.
        mlp_ratio: hidden width of the MLP in multiples of D.
        clip: CLIP's variant: QuickGELU, and layer normalizations with an epsilon of 1e-5.
        adapters: number of adapters: 1 before the MLP, 2 also before the attention.
        adapter_dim: width of their bottleneck.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, clip: bool, adapters: int, adapter_dim: int
    ) -> None:
        super().__init__()
        eps = 1e-5 if clip else 1e-6
        self.adapter_pre_attn = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 1 else None
        self.adapter_pre_mlp = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 0 else None
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        hidden = int(embed_dim * mlp_ratio)
        act = QuickGELU() if clip else nn.GELU()
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(embed_dim, hidden), act=act, fc2=nn.Linear(hidden, embed_dim))
        )

    def normalize(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``(B, T, 1 + N, D)`` after the first adapter, and what each frame's attention takes of them."""
        if self.adapter_pre_attn is not None:
            tokens = _adapt(self.adapter_pre_attn(tokens[:, :, 1:].transpose(1, 2)), tokens)
        return tokens, self.norm1(tokens).flatten(0, 1)

    def forward(self, tokens: torch.Tensor, class_token_only: bool = False) -> torch.Tensor:
        """Transform tokens ``(B, T, 1 + N, D)``; on wish give the class tokens ``(B, T, 1, D)`` alone."""
        tokens, frames = self.normalize(tokens)
        if class_token_only:
            tokens = tokens[:, :, :1]
        tokens = tokens + self.attn(frames, first_only=class_token_only).reshape(tokens.shape)
        if self.adapter_pre_mlp is not None and not class_token_only:
            tokens = _adapt(self.adapter_pre_mlp(tokens[:, :, 1:].transpose(1, 2)), tokens)
        return tokens + self.mlp(self.norm2(tokens))


def _adapt(patches: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """``tokens`` ``(B, T, 1 + N, D)`` with other patches ``(B, N, T, D)``; the class tokens stay."""
    return torch.cat([tokens[:, :, :1], patches.transpose(1, 2)], dim=2)
