# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import nn

from endofm_monai.apps.active_learning.selection import select_frames
from endofm_monai.inferers.uncertainty import mask_entropy

__all__ = ["STRATEGIES", "Frames", "TokenDecoder", "simulate"]

STRATEGIES = {  # name: whether it looks at uncertainty, and at embeddings
    "random": (False, False),
    "uncertainty": (True, False),
    "k-center": (False, True),
    "both": (True, True),
}


@dataclass(frozen=True)
class Frames:
    """Frames with what a frozen backbone makes of them.

    Args:
        tokens: patch tokens ``(N, D, h, w)``.
        embeddings: class tokens ``(N, D)``.
        masks: 0/1 masks of the frames' own size, N times uint8 ``(H, W)``.
        windows: name of each frame's window.
    """

    tokens: torch.Tensor
    embeddings: torch.Tensor
    masks: Sequence[torch.Tensor]
    windows: Sequence[Hashable]


class TokenDecoder(nn.Sequential):
    """A light decoder of a frozen backbone's tokens: logits ``(B, 1, 2h, 2w)`` of the foreground.

    Args:
        in_channels: width D of a token.
        channels: channels of the decoder.
    """

    def __init__(self, in_channels: int, channels: int = 32) -> None:
        super().__init__(
            nn.Dropout2d(0.3),
            *_layer(in_channels, channels, 1),
            *_layer(channels, channels, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_layer(channels, channels // 2, 3),
            nn.Conv2d(channels // 2, 1, 1),
        )


def _layer(in_channels: int, channels: int, kernel_size: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2)
    return convolution, nn.GroupNorm(8, channels), nn.GELU()


def simulate(
    pool: Frames,
    validation: Frames,
    strategy: str,
    seed: int,
    first: int = 8,
    step: int = 8,
    last: int = 40,
    iterations: int = 150,
) -> Iterator[tuple[int, float]]:
    """Pretend to annotate frames of the pool step by step, and say what a decoder learns from them.

    The first frames are drawn at random, the same for all strategies. For each step a new decoder is trained on all
    frames that are annotated by then, and judged; then it is asked for the next ones.

    Args:
        pool: frames whose masks are looked at only once they have been chosen.
        validation: frames that the decoder is judged on.
        strategy: one of ``STRATEGIES``.
        seed: seed of the draws and of the training.
        first: frames to begin with.
        step: frames to annotate at a time.
        last: number of annotated frames to stop at.
        iterations: training iterations of each decoder, in batches of 8 frames.

    Yields:
        number of annotated frames, and mean Dice over the validation frames at their own size.

    Raises:
        ValueError: when the strategy is unknown, or the pool has fewer than ``last`` windows.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, but got {strategy!r}.")
    if len(set(pool.windows)) < last:
        raise ValueError(f"The pool has {len(set(pool.windows))} windows, too few for `last`={last} frames.")
    by_uncertainty, by_embeddings = STRATEGIES[strategy]
    labeled = select_frames(None, None, first, pool.windows, seed=seed)
    while True:
        decoder = _train(pool, labeled, seed, iterations)
        yield len(labeled), _judge(decoder, validation)
        if len(labeled) >= last:
            return
        scores = mask_entropy(_probability(decoder, pool.tokens)) if by_uncertainty else None
        embeddings = pool.embeddings if by_embeddings else None
        labeled += select_frames(scores, embeddings, step, pool.windows, labeled, seed=seed * 1000 + len(labeled))


def _train(pool: Frames, labeled: Sequence[int], seed: int, iterations: int) -> TokenDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = TokenDecoder(pool.tokens.shape[1])
        tokens = pool.tokens[labeled].float()
        size = [2 * side for side in tokens.shape[2:]]
        truth = torch.stack([_resize(pool.masks[index], size) for index in labeled])
        loss_function = DiceCELoss(sigmoid=True)
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, iterations)
        for _ in range(iterations):
            batch = torch.randint(len(labeled), (8,))
            flips = [dim for dim in (2, 3) if torch.rand(()) < 0.5]
            loss = loss_function(decoder(tokens[batch].flip(flips)), truth[batch].flip(flips))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return decoder.eval()


def _resize(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(mask[None, None].float(), list(size), mode="area")[0].round()


@torch.no_grad()
def _probability(decoder: TokenDecoder, tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([decoder(batch.float()).sigmoid() for batch in tokens.split(32)])


def _judge(decoder: TokenDecoder, frames: Frames) -> float:
    dice = []
    for probability, mask in zip(_probability(decoder, frames.tokens), frames.masks, strict=True):
        (found,) = F.interpolate(probability[None], mask.shape, mode="bilinear")[0] > 0.5
        hits = int((found & (mask > 0)).sum())
        total = int(found.sum()) + int(mask.sum())
        dice.append(2 * hits / total if total else 1.0)
    return float(np.mean(dice))
