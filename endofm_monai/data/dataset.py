# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import cached_property
from itertools import cycle, islice
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import Dataset, decollate_batch, list_data_collate
from monai.networks import eval_mode
from monai.transforms import Compose
from monai.utils import CommonKeys, convert_to_tensor, ensure_tuple
from torch.utils.data import DataLoader, DistributedSampler
from tqdm import tqdm

from endofm_monai.data.datalist import adopt_items, check_weight
from endofm_monai.data.masks import mask_files
from endofm_monai.data.readers.base import ClipReadError
from endofm_monai.utils import cause_of

__all__ = [
    "ClipDataset", "ClipKey", "ClipLoader", "EpochSampler", "FeatureCache", "collate_clips", "count_clips",
    "split_clips", "survive_first_sigterm",
]  # fmt: skip

logger = logging.getLogger(__name__)
_ROUNDING = 0.1  # share of what a weight asks for that rounding may add or take away without a word


class ClipKey(NamedTuple):
    """What an :class:`EpochSampler` asks a :class:`ClipDataset` for: a clip, as it is seen in one epoch."""

    clip: int  # index of the clip
    epoch: int
    repeat: int = 0  # how often this epoch has seen the clip before, where clips are weighted


class BrokenClip(str):
    """Why a clip could not be read: a message, which differs by the frames that were wanted."""

    clip: str = ""  # what is the same for all messages about it


class ClipDataset(Dataset):
    """Items of a datalist, whose random ``transform`` depends on nothing but ``seed`` and key: clip, epoch, repetition.

    So an item is the same with any number of workers, on any rank, and after a resume. A clip that cannot be read
    becomes the item ``{"broken": message}``, the message starting with the file's name: what to do about it is the
    policy of :class:`endofm_monai.handlers.BrokenClipsHandler`, in the main process, where it is counted.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable | None = None, seed: int = 0) -> None:
        super().__init__(adopt_items(data), transform if isinstance(transform, Compose) else Compose(transform))
        self.seed = seed

    def __getitem__(self, key: Any) -> Any:
        """Load the clip of an index (epoch 0) or a ``ClipKey``; its item also has its ``index`` and ``seed``."""
        if isinstance(key, int):
            key = ClipKey(key, 0)
        if not isinstance(key, ClipKey):
            return super().__getitem__(key)
        # multiplicative hashes keep the seeds of neighbouring epochs and clips apart, within numpy's 32 bits
        seed = self.seed + 2654435761 * (key.epoch * len(self.data) + key.clip + 1) + 2246822519 * key.repeat
        seed %= 2**32
        self.transform.set_random_state(seed=seed)
        item = {**self.data[key.clip], "index": key.clip, "seed": seed}
        try:
            if "mask" in item:  # while its `image` still names the frames
                item["mask"] = mask_files(item["mask"], item[CommonKeys.IMAGE])
            return self.transform(item)
        except Exception as error:
            if isinstance(cause := cause_of(error), ClipReadError):
                message = BrokenClip(cause)
                message.clip = str(ensure_tuple(item.get(CommonKeys.IMAGE, key.clip))[0])
                return {"broken": message}
            raise


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of the items that could be read.

    An item has an ``image``, a clip ``(3, T, H, W)``, a list of V views ``(3, T, S, S)``, or a raw clip, uint8 and of
    any size, of which views are still to be made; or it has ``broken``, why it could not be read.

    In the batch ``image`` is a tensor ``(B, 3, T, H, W)``, a list of V tensors ``(B, 3, T, S, S)``, or of B raw clips;
    other tensors and numbers are stacked, and anything else is a list of B values, None for an item that lacks the key.
    ``broken`` is the list of messages. With no item left ``image`` is an empty list.
    """
    read = [item for item in items if "broken" not in item]
    batch: dict[str, Any] = {CommonKeys.IMAGE: []}
    for key in dict.fromkeys(key for item in read for key in item):
        values = [item.get(key) for item in read]
        first = values[0]
        if key == CommonKeys.IMAGE and isinstance(first, list) and isinstance(first[0], torch.Tensor):
            batch[key] = [torch.stack(views) for views in zip(*values, strict=True)]
        elif key == CommonKeys.IMAGE and isinstance(first, torch.Tensor) and first.dtype == torch.uint8:
            batch[key] = values
        else:
            are_numbers = all(isinstance(value, (torch.Tensor, np.ndarray, np.number, int, float)) for value in values)
            batch[key] = list_data_collate(values) if are_numbers else values
    return {**batch, "broken": [item["broken"] for item in items if "broken" in item]}


def count_clips(images: Any) -> int:
    """Number of clips in the ``image`` of a batch of :func:`collate_clips`."""
    is_views = isinstance(images, list) and len(images) > 0 and images[0].ndim == 5
    return len(images[0] if is_views else images)


def split_clips(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Undo :func:`collate_clips`: the items of a batch without its ``broken``."""
    # MONAI's function would look into lists as well, and drop items when one of them holds an empty one
    lists = {key: value for key, value in batch.items() if isinstance(value, list)}
    items = decollate_batch({key: value for key, value in batch.items() if key not in lists})
    lists.pop("broken", None)
    for index, item in enumerate(items):
        item.update({key: values[index] for key, values in lists.items() if values[index] is not None})
    return items


class EpochSampler(DistributedSampler):
    """Order of the clips of each epoch, for one process or many.

    Engines call ``set_epoch`` when an epoch starts. Each rank gets an equal share; where clips do not divide evenly,
    the first ones of the order are seen twice. With ``shuffle`` each epoch has an order of its own, by ``seed``. Clips
    are seen ``repeats`` times, each otherwise augmented: where they are few, workers are started less often.

    Items of a :class:`ClipDataset` may have a ``weight``, which counts with ``shuffle``: how often they are seen in an
    epoch, 1 without. Clips of one weight are dealt out like cards: of 100 clips of weight 0.25 each epoch sees the next
    25, so after four epochs all have been seen once; with weight 2.5, 50 of them three times and the others twice. All
    epochs have the same length: few clips of a weight are seen a whole number of times, as a warning tells.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0, repeats: int = 1) -> None:
        super().__init__(dataset, idist.get_world_size(), idist.get_rank(), shuffle, seed)  # type: ignore[arg-type]
        self._done = 0
        # a validation sees all clips once, in any number of processes
        self._decks = _make_decks(dataset if shuffle else range(len(dataset)), seed, repeats)
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
        order = _permutation(len(clips), self.seed + self.epoch) if self.shuffle else slice(None)
        drawn = zip(clips[order].tolist(), repeats[order].tolist(), strict=True)
        keys = [ClipKey(clip, self.epoch, repeat) for clip, repeat in drawn]
        return islice(cycle(keys), self.rank + done * self.num_replicas, self.total_size, self.num_replicas)


def _permutation(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _make_decks(dataset: Sized, seed: int, repeats: int) -> list[tuple[torch.Tensor, int]]:
    """Give the clips of each weight in a random order, and how many of them an epoch sees."""
    items = dataset.data if isinstance(dataset, ClipDataset) else [{}] * len(dataset)
    indices: dict[float, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        weight = item.get("weight", 1)
        check_weight(weight, item)
        indices[float(weight) * repeats].append(index)
    decks, rounded = [], []
    for weight, clips in sorted(indices.items()):
        count = round(weight * len(clips))
        if count == 0:
            raise ValueError(f"weight: {len(clips)} clips of weight {weight} are less than one clip an epoch")
        if abs(count / (weight * len(clips)) - 1) > _ROUNDING:
            rounded.append(f"{len(clips)} of weight {weight:g} {count} times together")
        decks.append((torch.tensor(clips)[_permutation(len(clips), seed)], count))
    if rounded:
        found = ", ".join(rounded[:3]) + (", ..." if len(rounded) > 3 else "")
        problem = f"few clips share a weight, so an epoch sees {found}"
        logger.warning(f"weight: {problem}; give more clips the same weight, or whole numbers.")
    return decks


class ClipLoader(DataLoader):
    """Loader of the clips of a :class:`ClipDataset`, in training and validation, for one process or many.

    Clips come in the orders of an :class:`EpochSampler` with ``shuffle``, else in their own, in batches of
    :func:`collate_clips`; by default ``shuffle`` leaves out a last batch that is not full (``drop_last``). For a GPU,
    as ``device``, they are put into memory that is copied from quickly. The workers survive a SIGTERM for the whole
    process group, so that the training can finish its step and save.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        repeats: int = 1,
        num_workers: int = 0,
        device: str | torch.device = "cpu",
        drop_last: bool | None = None,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=EpochSampler(dataset, shuffle, seed, repeats) if shuffle or idist.get_world_size() > 1 else None,
            num_workers=num_workers,
            collate_fn=collate_clips,
            drop_last=shuffle if drop_last is None else drop_last,
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator(),  # else it would draw random numbers that others depend on
            worker_init_fn=survive_first_sigterm,
        )


class FeatureCache(ClipDataset):
    """A :class:`ClipDataset` with what a frozen network makes of ``image`` in its place, computed once, in memory.

    So a head is trained and evaluated by the same loaders and engines as a whole network, in seconds. The clips have to
    be the same in every epoch: no random transforms. They are seen when the first item is asked for, in the main
    process: a loader of this dataset has no workers.

    The network, on ``device``, has ``features`` that takes clips ``(B, 3, T, H, W)`` to features ``(B, ...)``, as an
    :class:`endofm_monai.networks.nets.EndoFMClassifier`.
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
        backbone = getattr(network, "backbone", None)
        if backbone is not None and any(parameter.requires_grad for parameter in backbone.parameters()):
            raise ValueError("features of a backbone that learns change: `mode` must be linear_probe without adapters.")
        if idist.backend() is not None:
            raise ValueError("features are for a head that learns in one process: leave out multi_gpu_train.json.")
        self._network, self._device = network, device
        self._loader = ClipLoader(ClipDataset(data, transform), batch_size, num_workers=num_workers)
        self._loader.collate_fn = list  # items in order, also those that are broken

    @cached_property
    def _items(self) -> list[dict[str, Any]]:
        """All items; not before the first one is asked for, since the start of a training may load ``weights``."""
        computed = list[dict[str, Any]]()
        with eval_mode(self._network):  # which also turns gradients off
            for items in tqdm(self._loader, "Computing features", unit="batch", disable=None):
                if read := [item for item in items if "broken" not in item]:
                    batch = torch.stack([convert_to_tensor(item[CommonKeys.IMAGE], track_meta=False) for item in read])
                    features = self._network.features(batch.to(self._device)).float().cpu()
                    for item, feature in zip(read, features, strict=True):
                        item[CommonKeys.IMAGE] = feature
                computed += items
        return computed

    def __getitem__(self, key: Any) -> Any:
        return dict(self._items[key.clip if isinstance(key, ClipKey) else key])


def survive_first_sigterm(worker_id: int) -> None:
    """Initialize a loader's worker so that a first signal, which schedulers send to all processes, does not end it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
