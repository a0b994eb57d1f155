# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections import OrderedDict

import torch
from monai.networks.blocks import Swish
from torch import nn

from endofm_monai.networks.blocks.divided_space_time import SelfAttention, SpatialTemporalAdapter

STORAGE_TOKENS = 4  # of DINOv3, between class token and patches


class RotaryPositions(nn.Module):
    """DINOv3's positions: they turn queries and keys by the place of their patch (RoPE; arXiv:2508.10104).

    Args:
        head_dim: width d of an attention head, a multiple of 4.
    """

    periods: torch.Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("periods", 100.0 ** (torch.arange(head_dim // 4) * 4 / head_dim))  # files round them

    def forward(self, rows: int, columns: int) -> torch.Tensor:
        """Cosines and sines ``(2, rows * columns, d)`` of the patches' angles, whose places go from -1 to 1."""
        device = self.periods.device
        row, column = ((torch.arange(size, device=device) + 0.5) * (2 / size) - 1 for size in (rows, columns))
        places = torch.stack([row[:, None].expand(rows, columns), column.expand(rows, columns)], dim=2).flatten(0, 1)
        angles = (2 * math.pi * places[:, :, None] / self.periods).flatten(1).repeat(1, 2)
        return torch.stack([angles.cos(), angles.sin()])


class FrameBlock(nn.Module):
    """Block of an image ViT, on frames that each have a class token, with adapters between the frames' patches.

    Arguments are those of :class:`DividedSpaceTimeBlock`, and the ``variant`` of a ``FrameViT``.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, variant: str, adapters: int, adapter_dim: int
    ) -> None:
        super().__init__()
        eps = 1e-6 if variant == "timm" else 1e-5
        self.first_patch = 1 + STORAGE_TOKENS if variant == "dinov3" else 1
        self.adapter_pre_attn = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 1 else None
        self.adapter_pre_mlp = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 0 else None
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        hidden = int(embed_dim * mlp_ratio)
        act = Swish(1.702) if variant == "clip" else nn.GELU()  # the former is called QuickGELU
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(embed_dim, hidden), act=act, fc2=nn.Linear(hidden, embed_dim))
        )

    def normalize(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``(B, T, L, D)`` after the first adapter, and what each frame's attention takes of them."""
        if self.adapter_pre_attn is not None:
            patches = self.adapter_pre_attn(tokens[:, :, self.first_patch :].transpose(1, 2))
            tokens = self._replace(tokens, patches)
        return tokens, self.norm1(tokens).flatten(0, 1)

    def forward(
        self, tokens: torch.Tensor, rotation: torch.Tensor | None, class_token_only: bool = False
    ) -> torch.Tensor:
        """Transform tokens ``(B, T, L, D)``, with positions by a ``rotation``; or give the class tokens alone."""
        tokens, frames = self.normalize(tokens)
        if class_token_only:
            tokens = tokens[:, :, :1]
        tokens = tokens + self.attn(frames, class_token_only, rotation).reshape(tokens.shape)
        if self.adapter_pre_mlp is not None and not class_token_only:
            patches = self.adapter_pre_mlp(tokens[:, :, self.first_patch :].transpose(1, 2))
            tokens = self._replace(tokens, patches)
        return tokens + self.mlp(self.norm2(tokens))

    def attention_maps(self, tokens: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        """Softmax weights ``(B*T, heads, L, L)`` that the block computes for ``tokens`` ``(B, T, L, D)``."""
        return self.attn.attention_map(self.normalize(tokens)[1], rotation)

    def _replace(self, tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """``tokens`` ``(B, T, L, D)`` with other patches ``(B, N, T, D)``."""
        return torch.cat([tokens[:, :, : self.first_patch], patches.transpose(1, 2)], dim=2)
