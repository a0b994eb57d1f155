# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Literal, NamedTuple  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from torch import nn

from endofm_monai.networks.blocks.divided_space_time import DividedSpaceTimeBlock, resample_table
from endofm_monai.networks.blocks.packed_clips import pack_clips
from endofm_monai.networks.nets.backbone import Backbone


class EndoFMFeatures(NamedTuple):
    """What the backbone knows of a batch of clips, after the final layer normalization."""

    class_token: torch.Tensor  # (B, D)
    token_map: torch.Tensor  # (B, D, T, H / patch, W / patch)


class EndoFM(Backbone):
    """Video transformer of Endo-FM: ViT with divided space-time attention and dynamic positional encoding.

    Takes clips of any number of frames and of any size in multiples of the patch. Architecture and parameter names are
    those of the published model (Wang et al., "Foundation Model for Endoscopy Video Analysis via Large-scale
    Self-supervised Pre-train", MICCAI 2023, section 2.1), see :func:`endofm_monai.weights.load_published`.

    Args:
        img_size: height and width (or one number for both) in pixels that the spatial position table is made for.
        patch_size: height and width of a patch in pixels.
        num_frames: frames that the temporal position table is made for.
        embed_dim: width D of a token.
        depth: number of blocks.
        num_heads: attention heads of a block.
        mlp_ratio: hidden width of the MLPs in multiples of D.
        drop_path_rate: drop-path probability of the last block; it rises linearly from 0 at the first.
        activation_checkpointing: what of a block's activations the backward pass computes again, for less memory: all
            of them (True); or (``"selective"``) norms and MLPs, while the other matrix products, convolutions and
            attention are kept.
        token_drop: share of patch positions, drawn for each clip, that :meth:`forward` leaves out of all its frames
            while training; time and memory fall in proportion (0.8 in STOMP, MICCAI 2026).
        temporal: whether frames attend to each other; without, there is no temporal branch and no table of time, and
            they are encoded one by one, as by an image ViT whose weights are then the same.
        adapters: adapters of a block (see :class:`~endofm_monai.networks.blocks.SpatialTemporalAdapter`), which
            change nothing until they learn: none, 1 before the MLP, or 2, also at the start of the block.
        adapter_dim: width of their bottleneck; None is D / 2, as published.

    Example::

        >>> backbone = EndoFM.from_preset("tiny")
        >>> backbone(torch.rand(1, 3, 8, 224, 224)).shape
        torch.Size([1, 192])
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_frames: int = 8,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        activation_checkpointing: bool | Literal["selective"] = False,
        token_drop: float = 0.0,
        temporal: bool = True,
        adapters: int = 0,
        adapter_dim: int | None = None,
    ) -> None:
        super().__init__(img_size, patch_size, embed_dim, adapters, activation_checkpointing)
        if not 0 <= token_drop < 1:
            raise ValueError(f"`token_drop` must be at least 0 and below 1, but got {token_drop}.")
        self.token_drop = float(token_drop)
        self.temporal = temporal

        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid_size[0] * self.grid_size[1], embed_dim))
        no_time = torch.zeros(1, num_frames, embed_dim)
        if temporal:
            self.time_embed = nn.Parameter(no_time)
        else:
            self.register_buffer("time_embed", no_time, persistent=False)
        adapter_dim = adapter_dim or embed_dim // 2
        rates = [drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            DividedSpaceTimeBlock(embed_dim, num_heads, mlp_ratio, rate, temporal, adapters, adapter_dim)
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.reset_linear_layers()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens ``(B, 1 + N*T, D)`` of clips ``(B, C, T, H, W)``, with positions, before the first block."""
        batch, num_frames = x.shape[0], x.shape[2]
        grid = self.embed_patches(x)
        position = resample_table(self.pos_embed[:, 1:], self.grid_size, (grid.shape[2], grid.shape[3]))
        time = resample_table(self.time_embed, (self.time_embed.shape[1], 1), (num_frames, 1))
        patches = grid.reshape(batch, num_frames, self.embed_dim, -1).permute(0, 3, 1, 2)  # (B, N, T, D)
        patches = patches + position.unsqueeze(2) + time.unsqueeze(1)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        return torch.cat([class_token.to(patches.dtype), patches.reshape(batch, -1, self.embed_dim)], dim=1)

    def transform(self, tokens: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Normalized ``tokens`` ``(B, 1 + N*T, D)`` after all blocks, or the class token ``(B, 1, D)`` alone."""
        for index, block in enumerate(self.blocks):
            alone = class_token_only and index == len(self.blocks) - 1
            if torch.jit.is_scripting():
                tokens = block(tokens, num_frames, alone)
            else:
                tokens = self.run(block, tokens, num_frames, alone)
        return self.norm(tokens)

    def drop_tokens(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """While training, keep a random share of the patch positions of ``(B, 1 + N*T, D)``, the same in all frames."""
        if not self.training or self.token_drop == 0:
            return tokens
        batch, _, width = tokens.shape
        patches = tokens[:, 1:].reshape(batch, -1, num_frames * width)  # (B, N, T*D)
        kept = max(1, int(patches.shape[1] * (1 - self.token_drop) + 0.5))  # TorchScript rounds to a float
        order = torch.rand(batch, patches.shape[1], device=tokens.device).argsort(dim=1)[:, :kept]
        patches = patches.gather(1, order.unsqueeze(2).expand(-1, -1, patches.shape[2]))
        return torch.cat([tokens[:, :1], patches.reshape(batch, -1, width)], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class token ``(B, D)`` of normalized clips ``(B, C, T, H, W)``, H and W in multiples of the patch size."""
        tokens = self.drop_tokens(self.embed(x), x.shape[2])
        return self.transform(tokens, x.shape[2], class_token_only=True)[:, 0]

    @torch.jit.ignore
    def forward_packed(self, batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What :meth:`forward` gives for batches of clips of several shapes, by few and larger operations."""
        by_frames = sorted(range(len(batches)), key=lambda index: -batches[index].shape[2])
        tokens, shapes = [], []
        for index in by_frames:
            frames = batches[index].shape[2]
            tokens.append(self.drop_tokens(self.embed(batches[index]), frames))
            shapes.append((len(tokens[-1]), (tokens[-1].shape[1] - 1) // frames, frames))
        packed = pack_clips(tuple(shapes), tokens[0].device)
        rows = packed.join(tokens)
        for index, block in enumerate(self.blocks):
            transform = packed.transform if index < len(self.blocks) - 1 else packed.transform_class_tokens
            rows = self.run(transform, block, rows)
        class_tokens = self.norm(rows).split([batch for batch, _, _ in shapes])
        return [class_tokens[by_frames.index(index)] for index in range(len(batches))]

    @torch.jit.export
    def forward_features(self, x: torch.Tensor) -> EndoFMFeatures:
        """Class token and token map of normalized clips ``(B, C, T, H, W)``."""
        batch, _, num_frames, height, width = x.shape
        tokens = self.transform(self.embed(x), num_frames)
        rows, columns = height // self.patch_size, width // self.patch_size
        grid = tokens[:, 1:].reshape(batch, rows, columns, num_frames, self.embed_dim)  # `unflatten` fixes ONNX's batch
        return EndoFMFeatures(tokens[:, 0], grid.permute(0, 4, 3, 1, 2))

    @torch.jit.ignore
    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Spatial attention of the last block in each frame of clips ``(B, C, T, H, W)``.

        The softmax weights are ``(B, T, heads, 1 + N, 1 + N)``; row 0 is what the class token looks at.
        """
        *blocks, last = self.blocks
        tokens, num_frames = self.embed(x), x.shape[2]
        for block in blocks:
            tokens = block(tokens, num_frames)
        return last.attention_maps(tokens, num_frames).unflatten(0, (x.shape[0], num_frames))  # type: ignore[operator]
