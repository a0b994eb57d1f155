# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from endofm_monai.networks.blocks.self_attention import SelfAttention

__all__ = ["DividedSpaceTimeBlock"]


class DividedSpaceTimeBlock(nn.Module):
    """Transformer block that attends along time, then within each frame (paper, section 2.1).

    Tokens are ``(B, 1 + N*T, D)``: the clip's class token, then N patches of T frames with time running fastest.
    The class token takes no part in temporal attention; every frame attends with its own copy of it, and the copies'
    updates are averaged. Drop path acts on rows: a patch position's T tokens, a frame's 1 + N tokens, a clip's tokens.

    Args:
        embed_dim: width D of a token.
        num_heads: number of attention heads.
        mlp_ratio: hidden width of the MLP in multiples of D.
        drop_path_rate: probability to drop a row of a residual branch while training.
    """

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.temporal_attn = SelfAttention(embed_dim, num_heads)
        self.temporal_fc = nn.Linear(embed_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        hidden = int(embed_dim * mlp_ratio)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(embed_dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, embed_dim))
        )
        self.drop_path = StochasticDepth(drop_path_rate, mode="row")

    def attend_in_time(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Patch tokens ``(B, N, T, D)`` of ``tokens`` ``(B, 1 + N*T, D)`` after temporal attention."""
        batch, _, width = tokens.shape
        patches = tokens[:, 1:].reshape(batch, -1, num_frames, width)
        sequences = patches.reshape(-1, num_frames, width)  # (B*N, T, D)
        attended = self.drop_path(self.temporal_attn(self.temporal_norm1(sequences)))
        return patches + self.temporal_fc(attended).reshape(patches.shape)

    def frame_sequences(self, class_token: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Tokens ``(B*T, 1 + N, D)`` of each frame from ``class_token`` ``(B, 1, D)``, ``patches`` ``(B, N, T, D)``."""
        batch, num_patches, num_frames, width = patches.shape
        class_tokens = class_token.unsqueeze(1).expand(batch, num_frames, 1, width)
        frames = torch.cat([class_tokens, patches.transpose(1, 2)], dim=2)  # (B, T, 1 + N, D)
        return frames.reshape(batch * num_frames, 1 + num_patches, width)

    def forward(self, tokens: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Transform ``tokens`` ``(B, 1 + N*T, D)`` of clips with T = ``num_frames``.

        Returns:
            tokens of the same shape; or, without the work for the patches' own outputs, the class token ``(B, 1, D)``.
        """
        class_token = tokens[:, :1]
        patches = self.attend_in_time(tokens, num_frames)
        batch, num_patches, _, width = patches.shape
        frames = self.norm1(self.frame_sequences(class_token, patches))
        if class_token_only:
            attended = self.drop_path(self.attn.attend_from_first(frames))  # (B*T, 1, D)
            class_token = class_token + attended.reshape(batch, num_frames, width).mean(dim=1, keepdim=True)
            return class_token + self.drop_path(self.mlp(self.norm2(class_token)))

        attended = self.drop_path(self.attn(frames)).reshape(batch, num_frames, 1 + num_patches, width)
        class_token = class_token + attended[:, :, 0].mean(dim=1, keepdim=True)
        patches = patches + attended[:, :, 1:].transpose(1, 2)

        tokens = torch.cat([class_token, patches.reshape(batch, num_patches * num_frames, width)], dim=1)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def attention_maps(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Spatial attention weights ``(B*T, heads, 1 + N, 1 + N)`` that the block computes for ``tokens``."""
        frames = self.frame_sequences(tokens[:, :1], self.attend_in_time(tokens, num_frames))
        return self.attn.attention_map(self.norm1(frames))
