# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice

import ignite.distributed as idist
from torch.utils.data import DistributedSampler

from endofm_monai.data.clip_dataset import ClipKey

__all__ = ["EpochSampler"]


class EpochSampler(DistributedSampler):
    """Order of the clips of each epoch, for one process or many.

    MONAI's and ignite's engines call ``set_epoch`` when an epoch starts. Each rank gets an equal share; where the
    clips do not divide evenly, the first ones of the order are seen twice.

    Args:
        dataset: the dataset to draw from.
        shuffle: draw a new order each epoch.
        seed: seed of the orders.
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

    def skip(self, clips: int) -> None:
        """Leave out the first ``clips`` of this rank's next epoch: what a run did before it was interrupted."""
        self._done = clips

    def __iter__(self) -> Iterator[ClipKey]:
        """Yield this rank's keys of the epoch set by ``set_epoch``."""
        done, self._done = self._done, 0
        return (ClipKey(index, self.epoch) for index in islice(super().__iter__(), done, None))
