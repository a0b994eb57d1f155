# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict

import torch
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.utils.checkpoint import checkpoint

from endofm_monai.networks.blocks import AdaptableBackbone, FrameBlock
from endofm_monai.networks.blocks.divided_space_time import resample_table
from endofm_monai.networks.nets.endofm import ENDOFM_PRESETS, EndoFMFeatures


class FrameViT(AdaptableBackbone):
    """Image ViT that encodes the frames of a clip one by one; adapters alone let its patches see other frames.

    With :meth:`freeze`, the network of ST-Adapter (Pan et al., NeurIPS 2022): each frame keeps a class token of its
    own, and their mean is normalized at the end. In contrast, :class:`EndoFM` has one class token for all frames.
    Parameter names are timm's; image ViTs of timm, DINO and DINOv2, and of CLIP with ``clip``, load with
    :func:`endofm_monai.weights.initialize_backbone`.

    Args:
        img_size: height and width (or one number for both) in pixels that the position table is made for.
        patch_size: height and width of a patch in pixels.
        in_channels: channels of a frame.
        embed_dim: width D of a token.
        depth: number of blocks.
        num_heads: attention heads of a block.
        mlp_ratio: hidden width of the MLPs in multiples of D.
        adapters: adapters of a block: none, 1 before the MLP, or 2, also before the attention.
        adapter_dim: width of their bottleneck; None is D / 2, as published.
        clip: CLIP's image tower: a normalization before the first block, no bias of the patch embedding, QuickGELU,
            and layer normalizations with an epsilon of 1e-5.
        activation_checkpointing: recompute each block's activations in the backward pass: less memory, more time.
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
        clip: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if adapters not in (0, 1, 2):
            raise ValueError(f"`adapters` must be 0, 1 or 2, but got {adapters}.")
        height, width = ensure_tuple_rep(img_size, 2)
        if height % patch_size or width % patch_size:
            raise ValueError(f"`img_size` must be a multiple of `patch_size`={patch_size}, but got {img_size}.")
        self.grid_size: tuple[int, int] = (height // patch_size, width // patch_size)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.activation_checkpointing = activation_checkpointing
        eps = 1e-5 if clip else 1e-6

        kernel = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size, bias=not clip)
        self.patch_embed = nn.Sequential(OrderedDict(proj=kernel))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid_size[0] * self.grid_size[1], embed_dim))
        self.norm_pre = nn.LayerNorm(embed_dim, eps=eps) if clip else nn.Identity()
        self.blocks = nn.ModuleList(
            FrameBlock(embed_dim, num_heads, mlp_ratio, clip, adapters, adapter_dim or embed_dim // 2)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=eps)
        self.reset_linear_layers()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @classmethod
    def from_preset(cls, preset: str = "base", **overrides: object) -> "FrameViT":
        """A backbone of a named size of :meth:`EndoFM.from_preset`; ``overrides`` are constructor arguments."""
        if preset not in ENDOFM_PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(ENDOFM_PRESETS)}, but got {preset!r}.")
        return cls(**{**ENDOFM_PRESETS[preset], **overrides})  # type: ignore[arg-type]

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens ``(B, T, 1 + N, D)`` of clips ``(B, C, T, H, W)``, with positions, before the first block."""
        batch, _, num_frames, height, width = x.shape
        patch = self.patch_size
        if height % patch != 0 or width % patch != 0 or height * width * num_frames == 0:
            raise ValueError(f"Frames must have sides in multiples of {patch} pixels, got {height}x{width}.")
        grid = self.patch_embed(x.transpose(1, 2).flatten(0, 1))  # (B*T, D, rows, columns)
        position = resample_table(self.pos_embed[:, 1:], self.grid_size, (grid.shape[2], grid.shape[3]))
        patches = grid.flatten(2).transpose(1, 2) + position
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch * num_frames, -1, -1)
        tokens = torch.cat([class_token.to(patches.dtype), patches], dim=1)
        return self.norm_pre(tokens).reshape(batch, num_frames, -1, self.embed_dim)

    def transform(self, tokens: torch.Tensor, class_token_only: bool = False) -> torch.Tensor:
        """Pass tokens ``(B, T, 1 + N, D)`` through all blocks; on wish keep the class tokens ``(B, T, 1, D)`` alone."""
        for index, block in enumerate(self.blocks):
            alone = class_token_only and index == len(self.blocks) - 1
            if torch.jit.is_scripting() or not (self.activation_checkpointing and torch.is_grad_enabled()):
                tokens = block(tokens, alone)
            else:
                tokens = checkpoint(block, tokens, alone, use_reentrant=False)
        return tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of the frames' class tokens, normalized: ``(B, D)`` of normalized clips ``(B, C, T, H, W)``."""
        return self.norm(self.transform(self.embed(x), class_token_only=True)[:, :, 0].mean(dim=1))

    @torch.jit.export
    def forward_features(self, x: torch.Tensor) -> EndoFMFeatures:
        """The class token of :meth:`forward`, and the token map of normalized clips ``(B, C, T, H, W)``."""
        batch, _, num_frames, height, width = x.shape
        tokens = self.transform(self.embed(x))
        rows, columns = height // self.patch_size, width // self.patch_size
        grid = self.norm(tokens[:, :, 1:]).reshape(batch, num_frames, rows, columns, self.embed_dim)
        return EndoFMFeatures(self.norm(tokens[:, :, 0].mean(dim=1)), grid.permute(0, 4, 1, 2, 3))

    @torch.jit.ignore
    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of the last block in each frame, see :meth:`EndoFM.attention_maps`."""
        *blocks, last = self.blocks
        tokens = self.embed(x)
        for block in blocks:
            tokens = block(tokens)
        _, frames = last.normalize(tokens)  # type: ignore[operator]
        return last.attn.attention_map(frames).unflatten(0, (x.shape[0], x.shape[2]))  # type: ignore[union-attr, operator]
