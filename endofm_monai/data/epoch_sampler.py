# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sized
from itertools import cycle, islice

import ignite.distributed as idist
import torch
from torch.utils.data import DistributedSampler

from endofm_monai.data.clip_dataset import ClipDataset, ClipKey

__all__ = ["EpochSampler"]


class EpochSampler(DistributedSampler):
    """Order of the clips of each epoch, for one process or many.

    MONAI's and ignite's engines call ``set_epoch`` when an epoch starts. Each rank gets an equal share; where the
    clips do not divide evenly, the first ones of the order are seen twice.

    Items of a :class:`ClipDataset` may have a ``weight``: how often they are seen in an epoch, 1 without. Clips of one
    weight are dealt out like cards: of 100 clips of weight 0.25 each epoch sees the next 25, so after four epochs all
    have been seen once; with weight 2.5, 50 of them three times and the others twice. All epochs have the same length,
    and what an epoch sees depends on nothing but the seed and its number.

    Args:
        dataset: the dataset to draw from.
        shuffle: draw a new order each epoch.
        seed: seed of the orders.

    Raises:
        ValueError: when a weight is no positive number, or so small that no clip of this weight would ever be seen.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=idist.get_world_size(),
            rank=idist.get_rank(),
            shuffle=shuffle,
            seed=seed,
        )
        self._done = 0
        self._decks = _make_decks(dataset, seed)
        self.num_samples = -(-sum(count for _, count in self._decks) // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def skip(self, clips: int) -> None:
        """Leave out the first ``clips`` of this rank's next epoch: what a run did before it was interrupted."""
        self._done = clips

    def __iter__(self) -> Iterator[ClipKey]:
        """Yield this rank's keys of the epoch set by ``set_epoch``."""
        done, self._done = self._done, 0
        dealt = [deck[(torch.arange(count) + self.epoch * count) % len(deck)] for deck, count in self._decks]
        clips = torch.cat(dealt).sort().values
        repeats = torch.arange(len(clips)) - torch.searchsorted(clips, clips)  # the how manieth time it is seen
        keys = [
            ClipKey(clip, self.epoch, repeat) for clip, repeat in zip(clips.tolist(), repeats.tolist(), strict=True)
        ]
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            keys = [keys[place] for place in torch.randperm(len(keys), generator=generator).tolist()]
        mine = islice(cycle(keys), self.rank, self.total_size, self.num_replicas)
        return islice(mine, done, None)


def _make_decks(dataset: Sized, seed: int) -> list[tuple[torch.Tensor, int]]:
    """Give the clips of each weight in a random order, and how many of them an epoch sees."""
    items = dataset.data if isinstance(dataset, ClipDataset) else [{}] * len(dataset)
    indices: dict[float, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        weight = item.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise ValueError(f"weight: expected a positive number, found {weight!r} in {item}")
        indices[float(weight)].append(index)
    decks = []
    for weight, clips in sorted(indices.items()):
        count = round(weight * len(clips))
        if count == 0:
            raise ValueError(f"weight: {len(clips)} clips of weight {weight} are less than one clip an epoch")
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
        decks.append((torch.tensor(clips)[order], count))
    return decks
