# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def resample_table(table: torch.Tensor, table_size: tuple[int, int], grid_size: tuple[int, int]) -> torch.Tensor:
    """Dynamic positional encoding: each patch takes the nearest entry of a learned table (paper, section 2.1).

    From a ``table`` ``(1, N, D)``, row by row, of ``table_size`` rows and columns (frames and 1 for a table of time) to
    one of ``grid_size``, with the entries of ``F.interpolate(mode="nearest")``.
    """
    row = _nearest(table_size[0], grid_size[0], table.device)
    column = _nearest(table_size[1], grid_size[1], table.device)
    return table.index_select(1, (row.unsqueeze(1) * table_size[1] + column).flatten())


def _nearest(size: int, new_size: int, device: torch.device) -> torch.Tensor:
    """Indices that ``F.interpolate(mode="nearest")`` takes; written out, as ONNX rounds them otherwise."""
    return (torch.arange(new_size, device=device, dtype=torch.float32) * (size / new_size)).long()


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): a ``rate`` of rows is dropped in training, others are scaled up."""

    keep: torch.Tensor  # a tensor, so that one compiled graph serves the blocks of all rates

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.active = rate > 0
        least = torch.finfo(torch.float32).tiny  # a rate of 1 drops all rows, and 0 / 0 none
        self.register_buffer("keep", torch.tensor(max(1.0 - rate, least)), persistent=False)

    def factors(self, rows: int) -> torch.Tensor:
        """What to multiply each of the ``rows`` by: ``(rows,)``, 0 or the inverse of the share that is kept."""
        return torch.bernoulli(self.keep.expand(rows)) / self.keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop rows of ``(rows, L, D)``."""
        if not (self.training and self.active):
            return x
        return x * self.factors(x.shape[0]).to(x.dtype).unsqueeze(1).unsqueeze(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention as ``torch.nn.MultiheadAttention`` has it, in the published parameter names."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"`embed_dim` must be a multiple of `num_heads`, but got {embed_dim} and {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def project(
        self, x: torch.Tensor, first_only: bool = False, rotation: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (or the first alone), keys and values of tokens ``(B, L, D)``, each ``(B, heads, L, D / heads)``."""
        if first_only:
            width, weight, bias = x.shape[2], self.qkv.weight, self.qkv.bias
            query = self.split_heads(F.linear(x[:, :1], weight[:width], bias[:width]), 1)[0]
            key, value = self.split_heads(F.linear(x, weight[width:], bias[width:]), 2)
        else:
            query, key, value = self.split_heads(self.qkv(x), 3)
        if rotation is not None:
            query = query if first_only else turn(query, rotation)
            key = turn(key, rotation)
        return query, key, value

    def split_heads(self, projected: torch.Tensor, parts: int) -> list[torch.Tensor]:
        """The ``parts`` of projections ``(B, L, parts * D)``, each ``(B, heads, L, D / heads)``."""
        unbound = projected.unflatten(2, (parts, self.num_heads, -1)).unbind(2)  # gradients need no further copy
        return [part.transpose(1, 2) for part in unbound]

    def forward(self, x: torch.Tensor, first_only: bool = False, rotation: torch.Tensor | None = None) -> torch.Tensor:
        """Attend among the tokens ``(B, L, D)`` of each sequence: ``(B, L, D)``, or ``(B, 1, D)`` of the first.

        A ``rotation`` ``(2, N, D / heads)`` turns queries and keys of the last N tokens, see :func:`turn`.
        """
        if x.shape[1] == 1:  # the softmax of one weight is 1
            first = 2 * x.shape[2]
            return self.proj(F.linear(x, self.qkv.weight[first:], self.qkv.bias[first:]))
        query, key, value = self.project(x, first_only, rotation)
        return self.proj(self.weigh(query, key, value).transpose(1, 2).flatten(2))

    def weigh(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weigh values ``(B, heads, L, d)`` by products of queries and keys, plus a ``mask`` ``(B, 1, L, L)``."""
        mask = None if mask is None else mask.to(query.dtype)
        if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
            # two to six times as fast as the fused one with its backward pass, which keeps no weights
            products = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
            return (products if mask is None else products + mask).softmax(dim=-1) @ value
        return F.scaled_dot_product_attention(query, key, value, mask)

    def attention_map(self, x: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
        """Softmax weights ``(B, heads, L, L)`` among the tokens ``(B, L, D)``, rows summing to 1."""
        query, key, _ = self.project(x, False, rotation)
        return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)


def turn(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Queries or keys ``(B, heads, L, d)``, of which the last N are turned by a ``rotation`` ``(2, N, d)``."""
    first = x.shape[2] - rotation.shape[1]
    patches = x[:, :, first:]
    left, right = patches.chunk(2, dim=3)
    turned = patches * rotation[0] + torch.cat([-right, left], dim=3) * rotation[1]
    return torch.cat([x[:, :, :first], turned.to(x.dtype)], dim=2)


class SpatialTemporalAdapter(nn.Module):
    """Bottleneck that looks along time: down, a depthwise 3x1x1 convolution, up, and a residual (ST-Adapter).

    ``x + up(conv(down(x)))``, without an activation, as in the code that Pan et al. released ("ST-Adapter", NeurIPS
    2022). The convolution starts at zero, and so the adapter as the identity. Its ``width`` is D / 2 as published.
    """

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, width)
        self.conv = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), groups=width)
        self.fc2 = nn.Linear(width, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: torch's weights of the linear layers, everything else zero."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        for parameter in (self.conv.weight, self.conv.bias, self.fc1.bias, self.fc2.bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch tokens ``(B, N, T, D)``; the N places may come in any order, as each is convolved on its own."""
        reduced = F.pad(self.fc1(patches), (0, 0, 1, 1))
        before, same, after = self.conv.weight.flatten(1).to(reduced.dtype).unbind(1)  # (d,) each
        # on a CPU, three products are ten times as fast as the convolution
        seen = reduced[:, :, :-2] * before + reduced[:, :, 1:-1] * same + reduced[:, :, 2:] * after
        bias = self.conv.bias
        assert bias is not None  # as TorchScript has to be told
        return patches + self.fc2(seen + bias.to(seen.dtype))


def transformer_mlp(embed_dim: int, hidden: int, act: nn.Module) -> nn.Sequential:
    """The MLP of a block, in the published parameter names."""
    return nn.Sequential(OrderedDict(fc1=nn.Linear(embed_dim, hidden), act=act, fc2=nn.Linear(hidden, embed_dim)))


class DividedSpaceTimeBlock(nn.Module):
    """Transformer block that attends along time, then within each frame (paper, section 2.1).

    Tokens are ``(B, 1 + N*T, D)``: the clip's class token, then N patches of T frames with time running fastest. The
    class token takes no part in temporal attention; every frame attends with its own copy of it, and the copies'
    updates are averaged. Drop path acts on rows: a patch position's T tokens, a frame's 1 + N tokens, a clip's tokens.
    The arguments are explained at :class:`endofm_monai.networks.nets.EndoFM`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        temporal: bool = True,
        adapters: int = 0,
        adapter_dim: int = 384,
    ) -> None:
        super().__init__()
        self.adapter_pre_attn = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 1 else None
        self.adapter_pre_mlp = SpatialTemporalAdapter(embed_dim, adapter_dim) if adapters > 0 else None
        self.temporal_norm1 = nn.LayerNorm(embed_dim, eps=1e-6) if temporal else None
        self.temporal_attn = SelfAttention(embed_dim, num_heads) if temporal else None
        self.temporal_fc = nn.Linear(embed_dim, embed_dim) if temporal else None
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = transformer_mlp(embed_dim, int(embed_dim * mlp_ratio), nn.GELU())
        self.drop_path = DropPath(drop_path_rate)

    def attend_in_time(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Patch tokens ``(B, N, T, D)`` of ``tokens`` ``(B, 1 + N*T, D)`` after temporal attention."""
        batch, _, width = tokens.shape
        patches = tokens[:, 1:].reshape(batch, -1, num_frames, width)
        if self.adapter_pre_attn is not None:
            patches = self.adapter_pre_attn(patches)
        if self.temporal_norm1 is None or self.temporal_attn is None or self.temporal_fc is None:
            return patches
        sequences = patches.reshape(-1, num_frames, width)  # (B*N, T, D)
        attended = self.drop_path(self.temporal_attn(self.temporal_norm1(sequences)))
        return patches + self.temporal_fc(attended).reshape(patches.shape)

    def frame_sequences(self, class_token: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Normalized tokens ``(B*T, 1 + N, D)`` of each frame of ``(B, 1, D)`` and ``(B, N, T, D)``."""
        batch, num_patches, num_frames, width = patches.shape
        class_tokens = class_token.unsqueeze(1).expand(batch, num_frames, 1, width)
        frames = torch.cat([class_tokens, patches.transpose(1, 2)], dim=2)  # (B, T, 1 + N, D)
        return self.norm1(frames.reshape(batch * num_frames, 1 + num_patches, width))

    def forward(self, tokens: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Transform ``tokens`` ``(B, 1 + N*T, D)`` of clips with T = ``num_frames``.

        Or give, without the work for the patches' own outputs, the class token ``(B, 1, D)``.
        """
        patches = self.attend_in_time(tokens, num_frames)
        batch, num_patches, _, width = patches.shape
        frames = self.frame_sequences(tokens[:, :1], patches)
        attended = self.drop_path(self.attn(frames, class_token_only)).reshape(batch, num_frames, -1, width)
        class_token = tokens[:, :1] + attended[:, :, 0].mean(dim=1, keepdim=True)
        if class_token_only:
            tokens = class_token
        else:
            patches = patches + attended[:, :, 1:].transpose(1, 2)
            if self.adapter_pre_mlp is not None:
                patches = self.adapter_pre_mlp(patches)
            tokens = torch.cat([class_token, patches.reshape(batch, num_patches * num_frames, width)], dim=1)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def attention_maps(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Spatial attention weights ``(B*T, heads, 1 + N, 1 + N)`` that the block computes for ``tokens``."""
        return self.attn.attention_map(self.frame_sequences(tokens[:, :1], self.attend_in_time(tokens, num_frames)))
