# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from endofm_monai.networks.blocks.divided_space_time import DividedSpaceTimeBlock, DropPath, SelfAttention


class RowCopies(NamedTuple):
    """Rows that are copies of other ones, of which each has at least one copy.

    Embedding bags gather them: without atomic additions, so that sums are the same every time.
    """

    source: torch.Tensor  # the row that each copy is of
    order: torch.Tensor  # the copies, sorted by their source
    first: torch.Tensor  # place of the first copy of each source in this order
    number: torch.Tensor  # of copies of each source

    @classmethod
    def of(cls, source: torch.Tensor, sources: int) -> "RowCopies":
        """Copies of the given ones of ``sources`` rows."""
        number = source.new_zeros(sources).index_add(0, source, torch.ones_like(source))
        return cls(source, source.argsort(stable=True), number.cumsum(0) - number, number)

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """Copy ``rows``."""
        return _Spread.apply(rows, *self)

    def mean(self, copies: torch.Tensor) -> torch.Tensor:
        """The mean of the copies of each row."""
        return _Mean.apply(copies, *self)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, *index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*index)
        return rows.index_select(0, index[0])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        _, order, first, _ = ctx.saved_tensors
        return F.embedding_bag(order, gradient, first, mode="sum"), None, None, None, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, copies: torch.Tensor, *index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*index)
        _, order, first, _ = index
        return F.embedding_bag(order, copies, first, mode="mean")

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        source, _, _, number = ctx.saved_tensors
        return (gradient / number.unsqueeze(1)).index_select(0, source), None, None, None, None


MAX_JOINED = 32  # tokens of the longest sequence that others join: a longer one is worth a call of its own
MIN_TOKENS = 16  # of a sequence in a call: fused attention of fewer takes up to three times as long on a CPU


class Sequences(NamedTuple):
    """Rows that belong together, sequence by sequence.

    Those of one length attend in one call. Where its length is a multiple of that of shorter ones, these join the call,
    end to end; and short ones are put end to end up to some ``MIN_TOKENS`` tokens. A mask keeps them apart.
    """

    sizes: list[tuple[int, int]]  # numbers of sequences and their lengths
    of_row: torch.Tensor  # the sequence that each row is of
    joined: list[tuple[int, int]]  # number and length of what attends in one call
    masks: list[torch.Tensor | None]  # (number, 1, length, length) of each call, to be added; None if none are joined

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]], device: torch.device) -> "Sequences":
        """Numbers of sequences and their lengths; to be joined, the longer ones have to come first."""
        merged: list[tuple[int, int]] = []  # neighbors of one length
        for number, length in sizes:
            if merged and merged[-1][1] == length:
                number += merged.pop()[0]
            merged.append((number, length))
        of_row: list[torch.Tensor] = []
        spans: list[tuple[int, int, int]] = []  # rows, longest and shortest sequence of what may be joined
        start = 0
        for number, length in merged:
            of_row.append(start + torch.arange(number * length, device=device) // length)
            start += number
            rows, longest, shortest = spans[-1] if spans else (0, 0, 1)
            if 0 < longest <= MAX_JOINED and shortest % length == 0:
                spans[-1] = (rows + number * length, longest, length)
            else:
                spans.append((number * length, length, length))
        found = cls(merged, torch.cat(of_row), [], [])
        first = 0
        for rows, longest, shortest in spans:
            joined = max(MIN_TOKENS // longest, 1) * longest
            for number, length in ((rows // joined, joined), (1, rows % joined)):  # the last one may be shorter
                if number * length:
                    sequence = found.of_row[first : first + number * length].view(number, 1, length, 1)
                    apart = torch.zeros(number, 1, length, length, device=device)
                    apart.masked_fill_(sequence != sequence.transpose(2, 3), float("-inf"))
                    found.joined.append((number, length))
                    found.masks.append(apart if joined > shortest else None)
                    first += number * length
        return found

    def drop(self, drop_path: DropPath, rows: torch.Tensor) -> torch.Tensor:
        """Drop sequences of rows ``(R, D)`` while training."""
        if not (drop_path.training and drop_path.active):
            return rows
        factors = drop_path.factors(sum(number for number, _ in self.sizes))
        return rows * factors.index_select(0, self.of_row).unsqueeze(1).to(rows.dtype)


class PackedClips:
    """Clips of several shapes as one matrix of tokens, which blocks transform by few large operations.

    Its rows are the class tokens of all clips, then their patch tokens, clip by clip, time running fastest. Linear
    layers and norms take all rows at once; attention takes :class:`Sequences` of one length. The result is that of
    :class:`DividedSpaceTimeBlock` on each batch of clips, with drop path in distribution. Its ``shapes`` are clips,
    patches of a frame, and frames of each batch ``(B, N, T)``, best those of most frames first.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        self.clips = clips = sum(batch for batch, _, _ in shapes)
        clip, patch = 0, clips
        frames: list[torch.Tensor] = []
        of_row = [torch.arange(clips, device=device)]
        for batch, patches, length in shapes:
            own_clips = torch.arange(clip, clip + batch, device=device).view(-1, 1, 1)
            of_row.append(own_clips.expand(-1, patches, length).flatten())
            tokens = torch.arange(patch, patch + batch * patches * length, device=device).view(batch, patches, length)
            class_tokens = own_clips.expand(-1, length, 1)
            frames.append(torch.cat([class_tokens, tokens.transpose(1, 2)], dim=2).flatten(0, 1))  # (B*T, 1 + N) rows
            clip, patch = clip + batch, patch + batch * patches * length
        frames.sort(key=lambda rows: rows.shape[1])
        self.in_time = Sequences.of([(batch * patches, length) for batch, patches, length in shapes], device)
        self.in_frames = Sequences.of([(rows.shape[0], rows.shape[1]) for rows in frames], device)
        self.in_clips = Sequences([(clips, 0)], torch.cat(of_row), [], [])
        self.frames = RowCopies.of(torch.cat([rows.flatten() for rows in frames]), patch)
        self.clips_of_frames = RowCopies.of(torch.cat([rows[:, 0] for rows in frames]), clips)

    def join(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Rows ``(R, D)`` of the tokens ``(B, 1 + N*T, D)`` of each batch of clips."""
        return torch.cat([tokens[:, 0] for tokens in batches] + [tokens[:, 1:].flatten(0, 1) for tokens in batches])

    def transform(self, block: DividedSpaceTimeBlock, rows: torch.Tensor) -> torch.Tensor:
        """Pass rows ``(R, D)`` through a block."""
        rows = self._attend_in_time(block, rows)
        attended = _attend(block.attn, self.frames.spread(block.norm1(rows)), self.in_frames)
        rows = rows + self.frames.mean(self.in_frames.drop(block.drop_path, attended))
        rows = self._adapt(block.adapter_pre_mlp, rows)
        return rows + self.in_clips.drop(block.drop_path, block.mlp(block.norm2(rows)))

    def transform_class_tokens(self, block: DividedSpaceTimeBlock, rows: torch.Tensor) -> torch.Tensor:
        """Class tokens ``(clips, D)`` that a block makes of rows, without the work for the patches' own outputs."""
        rows = self._attend_in_time(block, rows)
        frames = _split(self.frames.spread(block.norm1(rows)), self.in_frames.sizes)
        attended = torch.cat([block.drop_path(block.attn(part, first_only=True)) for part in frames]).squeeze(1)
        class_tokens = rows[: self.clips] + self.clips_of_frames.mean(attended)
        return class_tokens + block.drop_path(block.mlp(block.norm2(class_tokens)).unsqueeze(1)).squeeze(1)

    def _attend_in_time(self, block: DividedSpaceTimeBlock, rows: torch.Tensor) -> torch.Tensor:
        rows = self._adapt(block.adapter_pre_attn, rows)
        if block.temporal_norm1 is None or block.temporal_attn is None or block.temporal_fc is None:
            return rows
        class_tokens, patches = rows.split([self.clips, len(rows) - self.clips])
        attended = _attend(block.temporal_attn, block.temporal_norm1(patches), self.in_time)
        attended = self.in_time.drop(block.drop_path, attended)
        return torch.cat([class_tokens, patches + block.temporal_fc(attended)])

    def _adapt(self, adapter: nn.Module | None, rows: torch.Tensor) -> torch.Tensor:
        if adapter is None:
            return rows
        class_tokens, patches = rows.split([self.clips, len(rows) - self.clips])
        adapted = [adapter(part.unsqueeze(0)).flatten(0, 2) for part in _split(patches, self.in_time.sizes)]
        return torch.cat([class_tokens, *adapted])


def _split(rows: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Rows ``(R, D)`` as sequences ``(number, length, D)`` of such sizes."""
    parts = rows.split([number * length for number, length in sizes])
    return [part.unflatten(0, size) for part, size in zip(parts, sizes, strict=True)]


def _attend(attention: SelfAttention, rows: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Attend among the rows ``(R, D)`` of each sequence."""
    attended = []
    for part, mask in zip(_split(attention.qkv(rows), sequences.joined), sequences.masks, strict=True):
        query, key, value = attention.split_heads(part, 3)
        attended.append(attention.weigh(query, key, value, mask).transpose(1, 2).flatten(2).flatten(0, 1))
    return attention.proj(torch.cat(attended) if len(attended) > 1 else attended[0])


def pack_clips(shapes: tuple[tuple[int, int, int], ...], device: torch.device) -> PackedClips:
    """The packing of clips of such shapes, made once; a compiled graph makes it anew, as it holds no cache."""
    return PackedClips(shapes, device) if torch.compiler.is_compiling() else _pack_once(shapes, device)


@lru_cache(maxsize=16)
def _pack_once(shapes: tuple[tuple[int, int, int], ...], device: torch.device) -> PackedClips:
    with torch.inference_mode(False):
        return PackedClips(shapes, device)
