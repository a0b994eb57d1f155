# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from monai.data import Dataset
from monai.transforms import Compose

from endofm_monai.data.clip_reader import ClipReadError

__all__ = ["ClipDataset", "ClipKey"]


class ClipKey(NamedTuple):
    """What an :class:`EpochSampler` asks a :class:`ClipDataset` for: a clip, as it is seen in one epoch.

    Args:
        clip: index of the clip.
        epoch: number of the epoch.
        repeat: how often this epoch has seen the clip before, where clips are weighted.
    """

    clip: int
    epoch: int
    repeat: int = 0


class ClipDataset(Dataset):
    """Clips whose random transforms depend on nothing but the seed and the key: clip, epoch, repetition.

    So an item is the same with any number of workers, on any rank, and after a resume. A clip that cannot be read
    becomes the item ``{"broken": message}``, the message starting with the file's name: what to do about it is the
    policy of :class:`endofm_monai.handlers.BrokenClipsHandler`, in the main process, where it is counted.

    Args:
        data: datalist items, for example from :func:`endofm_monai.data.load_datalist`.
        transform: transforms that load and prepare an item.
        seed: seed of all random transforms.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable, seed: int = 0) -> None:
        super().__init__(data, transform if isinstance(transform, Compose) else Compose([transform]))
        self.seed = seed

    def __getitem__(self, key: Any) -> Any:
        """Load one clip.

        Args:
            key: an index (epoch 0), or the ``ClipKey`` of an ``EpochSampler``; slices are those of MONAI's ``Dataset``.

        Returns:
            the transformed item, which also has its ``index`` in ``data`` and its ``seed``; or ``{"broken": message}``.
        """
        if isinstance(key, int):
            key = ClipKey(key, 0)
        if not isinstance(key, ClipKey):
            return super().__getitem__(key)
        # multiplicative hashes keep the seeds of neighbouring epochs and clips apart, within numpy's 32 bits
        seed = self.seed + 2654435761 * (key.epoch * len(self.data) + key.clip + 1) + 2246822519 * key.repeat
        seed %= 2**32
        self.transform.set_random_state(seed=seed)
        try:
            return self.transform({**self.data[key.clip], "index": key.clip, "seed": seed})
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ClipReadError):
                cause = cause.__cause__
            if cause is None:
                raise
            return {"broken": str(cause)}
