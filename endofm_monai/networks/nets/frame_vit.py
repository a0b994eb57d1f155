# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from typing import Literal  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from monai.networks.blocks import Swish
from torch import nn

from endofm_monai.networks.blocks import SpatialTemporalAdapter
from endofm_monai.networks.blocks.divided_space_time import SelfAttention, resample_table, transformer_mlp
from endofm_monai.networks.nets.backbone import Backbone
from endofm_monai.networks.nets.endofm import EndoFMFeatures

STORAGE_TOKENS = 4  # of DINOv3, between class token and patches
EPSILONS = {"timm": 1e-6, "clip": 1e-5, "dinov3": 1e-5}  # of the layer normalizations, by variant


class RotaryPositions(nn.Module):
    """DINOv3's positions: queries and keys of width d turn by the place of their patch (RoPE; arXiv:2508.10104)."""

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
    """Block of an image ViT, on frames that each have a class token; the arguments are explained at FrameViT."""

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, variant: str, adapters: int, adapter_dim: int
    ) -> None:
        super().__init__()
        eps = EPSILONS[variant]
        self.first_patch = 1 + STORAGE_TOKENS if variant == "dinov3" else 1
        self.adapter_pre_attn = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 1 else None
        self.adapter_pre_mlp = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 0 else None
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        act = Swish(1.702) if variant == "clip" else nn.GELU()  # the former is called QuickGELU
        self.mlp = transformer_mlp(embed_dim, int(embed_dim * mlp_ratio), act)

    def normalize(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``(B, T, L, D)`` after the first adapter, and what each frame's attention takes of them."""
        if self.adapter_pre_attn is not None:
            tokens = self._replace(tokens, self.adapter_pre_attn(tokens[:, :, self.first_patch :].transpose(1, 2)))
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
            tokens = self._replace(tokens, self.adapter_pre_mlp(tokens[:, :, self.first_patch :].transpose(1, 2)))
        return tokens + self.mlp(self.norm2(tokens))

    def attention_maps(self, tokens: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        """Softmax weights ``(B*T, heads, L, L)`` that the block computes for ``tokens`` ``(B, T, L, D)``."""
        return self.attn.attention_map(self.normalize(tokens)[1], rotation)

    def _replace(self, tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """``tokens`` ``(B, T, L, D)`` with other patches ``(B, N, T, D)``."""
        return torch.cat([tokens[:, :, : self.first_patch], patches.transpose(1, 2)], dim=2)


class FrameViT(Backbone):
    """Image ViT that encodes the frames of a clip one by one; adapters alone let its patches see other frames.

    With :meth:`freeze`, the network of ST-Adapter (Pan et al., NeurIPS 2022): each frame keeps a class token of its
    own, and their mean is normalized at the end. In contrast, :class:`EndoFM` has one class token for all frames.
    Parameter names are timm's; image ViTs load with :func:`endofm_monai.weights.initialize_backbone`.

    Its arguments are those of :class:`EndoFM`, and ``variant``: "timm", also of DINO and DINOv2; "clip", CLIP's image
    tower: a normalization before the first block, no bias of the patch embedding, QuickGELU, and layer normalizations
    with an epsilon of 1e-5; or "dinov3": the same epsilon, four storage tokens, and positions that turn queries and
    keys instead of a table.
    """

    temporal: bool = False

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        adapters: int = 1,
        adapter_dim: int | None = None,
        variant: str = "timm",
        activation_checkpointing: bool | Literal["selective"] = False,
    ) -> None:
        super().__init__(img_size, patch_size, embed_dim, adapters, activation_checkpointing, variant != "clip")
        if variant not in EPSILONS:
            raise ValueError(f'`variant` must be "timm", "clip" or "dinov3", but got {variant!r}.')
        eps, is_rotary = EPSILONS[variant], variant == "dinov3"
        self.rope_embed = RotaryPositions(embed_dim // num_heads) if is_rotary else None
        self.storage_tokens = nn.Parameter(torch.zeros(1, STORAGE_TOKENS, embed_dim)) if is_rotary else None
        entries = 1 + self.grid_size[0] * self.grid_size[1]
        self.pos_embed = None if is_rotary else nn.Parameter(torch.zeros(1, entries, embed_dim))
        self.norm_pre = nn.LayerNorm(embed_dim, eps=eps) if variant == "clip" else nn.Identity()
        self.blocks = nn.ModuleList(
            FrameBlock(embed_dim, num_heads, mlp_ratio, variant, adapters, adapter_dim or embed_dim // 2)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        self.reset_linear_layers()
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)

    def stem(self) -> list[nn.Module | nn.Parameter]:
        """What comes before the first block."""
        return [*super().stem(), self.norm_pre]

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens ``(B, T, L, D)`` of clips ``(B, C, T, H, W)``, and the rotation of ``RotaryPositions``, if any.

        The N patches of a frame come behind its class token and storage tokens.
        """
        grid = self.embed_patches(x)
        patches, first = grid.flatten(2).transpose(1, 2), self.cls_token.expand(1, -1, -1)
        if self.pos_embed is not None:
            patches = patches + resample_table(self.pos_embed[:, 1:], self.grid_size, (grid.shape[2], grid.shape[3]))
            first = first + self.pos_embed[:, :1]
        if self.storage_tokens is not None:
            first = torch.cat([first, self.storage_tokens], dim=1)
        tokens = torch.cat([first.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)
        tokens = self.norm_pre(tokens).reshape(x.shape[0], x.shape[2], -1, self.embed_dim)
        if self.rope_embed is None:
            return tokens, None
        return tokens, self.rope_embed(grid.shape[2], grid.shape[3])

    def transform(self, x: torch.Tensor, class_token_only: bool = False) -> torch.Tensor:
        """Tokens ``(B, T, L, D)`` of clips after all blocks; on wish the class tokens ``(B, T, 1, D)`` alone."""
        tokens, rotation = self.embed(x)
        for index, block in enumerate(self.blocks):
            alone = class_token_only and index == len(self.blocks) - 1
            if torch.jit.is_scripting():
                tokens = block(tokens, rotation, alone)
            else:
                tokens = self.run(block, tokens, rotation, alone)
        return tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of the frames' class tokens, normalized: ``(B, D)`` of normalized clips ``(B, C, T, H, W)``."""
        return self.norm(self.transform(x, class_token_only=True)[:, :, 0].mean(dim=1))

    @torch.jit.export
    def forward_features(self, x: torch.Tensor) -> EndoFMFeatures:
        """The class token of :meth:`forward`, and the token map of normalized clips ``(B, C, T, H, W)``."""
        batch, _, num_frames, height, width = x.shape
        tokens = self.transform(x)
        rows, columns = height // self.patch_size, width // self.patch_size
        patches = self.norm(tokens[:, :, -rows * columns :])
        grid = patches.reshape(batch, num_frames, rows, columns, self.embed_dim).permute(0, 4, 1, 2, 3)
        return EndoFMFeatures(self.norm(tokens[:, :, 0].mean(dim=1)), grid)

    @torch.jit.ignore
    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of the last block in each frame, see :meth:`EndoFM.attention_maps`; without storage tokens."""
        *blocks, last = self.blocks
        tokens, rotation = self.embed(x)
        for block in blocks:
            tokens = block(tokens, rotation)
        maps = last.attention_maps(tokens, rotation)  # type: ignore[operator]
        shown = [0, *range(last.first_patch, maps.shape[-1])]  # type: ignore[arg-type]
        return maps[..., shown, :][..., shown].unflatten(0, (x.shape[0], x.shape[2]))
