# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict
from typing import Literal  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from torch import nn

from endofm_monai.networks.blocks import FrameBlock
from endofm_monai.networks.blocks.divided_space_time import resample_table
from endofm_monai.networks.blocks.frame_block import STORAGE_TOKENS, RotaryPositions
from endofm_monai.networks.nets.backbone import Backbone
from endofm_monai.networks.nets.endofm import EndoFMFeatures


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
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        adapters: int = 1,
        adapter_dim: int | None = None,
        variant: str = "timm",
        activation_checkpointing: bool | Literal["selective"] = False,
    ) -> None:
        super().__init__(img_size, patch_size, embed_dim, adapters, activation_checkpointing)
        if variant not in ("timm", "clip", "dinov3"):
            raise ValueError(f'`variant` must be "timm", "clip" or "dinov3", but got {variant!r}.')
        eps = 1e-6 if variant == "timm" else 1e-5

        kernel = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size, bias=variant != "clip")
        self.patch_embed = nn.Sequential(OrderedDict(proj=kernel))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        is_rotary = variant == "dinov3"
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

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens ``(B, T, L, D)`` of clips ``(B, C, T, H, W)``, and the rotation of :class:`RotaryPositions`, if any.

        The N patches of a frame come behind its class token and storage tokens.
        """
        batch, _, num_frames, height, width = x.shape
        patch = self.patch_size
        if height % patch != 0 or width % patch != 0 or height * width * num_frames == 0:
            raise ValueError(f"Frames must have sides in multiples of {patch} pixels, got {height}x{width}.")
        grid = self.patch_embed(x.transpose(1, 2).flatten(0, 1))  # (B*T, D, rows, columns)
        patches, first = grid.flatten(2).transpose(1, 2), self.cls_token.expand(1, -1, -1)
        if self.pos_embed is not None:
            patches = patches + resample_table(self.pos_embed[:, 1:], self.grid_size, (grid.shape[2], grid.shape[3]))
            first = first + self.pos_embed[:, :1]
        if self.storage_tokens is not None:
            first = torch.cat([first, self.storage_tokens], dim=1)
        tokens = torch.cat([first.expand(batch * num_frames, -1, -1).to(patches.dtype), patches], dim=1)
        tokens = self.norm_pre(tokens).reshape(batch, num_frames, -1, self.embed_dim)
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
