# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import DataLoader
from monai.networks import eval_mode
from monai.utils import CommonKeys, convert_to_tensor
from tqdm import tqdm

from endofm_monai.data.clip_dataset import ClipDataset, ClipKey

__all__ = ["FeatureCache"]


class FeatureCache(ClipDataset):
    """What a frozen network makes of the clips of a dataset, computed once, in memory.

    The items are those of a :class:`ClipDataset` with the features in the place of ``image``, so a head is trained and
    evaluated on them by the same loaders and engines as a whole network, in seconds. The clips have to be the same in
    every epoch: no random transforms. A clip that cannot be read stays ``{"broken": message}``.

    Args:
        data: items, see :class:`ClipDataset`.
        transform: transforms that load and prepare an item.
        network: a network whose ``features`` takes clips ``(B, 3, T, H, W)`` to features ``(B, ...)``, as an
            :class:`endofm_monai.networks.nets.EndoFMClassifier`.
        device: where the network is.
        batch_size: clips that are computed at once.
        num_workers: processes that read clips.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable,
        network: Any,
        device: str | torch.device,
        batch_size: int = 4,
        num_workers: int = 0,
    ) -> None:
        super().__init__(data, transform)
        clips = ClipDataset(data, transform)
        loader = DataLoader(clips, batch_size=batch_size, num_workers=num_workers, collate_fn=list)
        self._items: list[dict[str, Any]] = []
        with eval_mode(network):  # which also turns gradients off
            for items in tqdm(loader, "Computing features", unit="batch", disable=None):
                read = [item for item in items if "broken" not in item]
                if read:
                    batch = torch.stack([convert_to_tensor(item[CommonKeys.IMAGE], track_meta=False) for item in read])
                    features = network.features(batch.to(device)).float().cpu()
                    for item, feature in zip(read, features, strict=True):
                        item[CommonKeys.IMAGE] = feature
                self._items += items

    def __getitem__(self, key: Any) -> Any:
        """The item of a clip, asked for by its index or by the key of an ``EpochSampler``."""
        return dict(self._items[key.clip if isinstance(key, ClipKey) else key])
