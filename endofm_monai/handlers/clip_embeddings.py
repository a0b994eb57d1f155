# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.networks import eval_mode
from monai.utils import CommonKeys, ImageMetaKey, convert_to_tensor
from torch import nn

from endofm_monai.data import split_clips

__all__ = ["ClipEmbeddings", "embed_clips"]


class Row(NamedTuple):
    """One clip: its path, its class index (-1 if it has none), and its embedding ``(D,)``."""

    path: str
    label: int
    embedding: np.ndarray


class ClipEmbeddings:
    """A table of clip embeddings, one row a clip, in the order of the datalist.

    It is filled by :func:`embed_clips`, or by a MONAI evaluator that it is attached to.
    """

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}  # by the clip's place in the datalist

    def __len__(self) -> int:
        return len(self._rows)

    def attach(self, engine: Engine) -> None:
        """Collect ``pred`` ``(D,)`` of each clip of each epoch of a MONAI evaluator, which must decollate."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def clear(self) -> None:
        """Remove all rows."""
        self._rows.clear()

    def _collect(self, engine: Engine) -> None:
        output = engine.state.output
        self.add(engine.state.batch[: len(output)], [item[CommonKeys.PRED] for item in output])

    def add(self, items: Sequence[Mapping[str, Any]], embeddings: Iterable[torch.Tensor]) -> None:
        """Add clips.

        Args:
            items: a dictionary for each clip, with its path as ``path`` or in the metadata of ``image``, perhaps its
                class index as an integer ``label``, and ``index``, its place in the datalist. The latter is not
                needed by a single process that goes through the datalist in order.
            embeddings: for each clip a tensor ``(D,)``.

        Raises:
            ValueError: when an embedding is not ``(D,)``, or when there are several processes and no ``index``.
            KeyError: when an item has no path.
        """
        for item, embedding in zip(items, embeddings, strict=True):
            if embedding.ndim != 1:
                raise ValueError(f"A clip's embedding must have the shape (D,), but got {tuple(embedding.shape)}.")
            if "index" not in item and idist.get_world_size() > 1:
                raise ValueError("To order the clips of several processes, items need `index`, as of a `ClipDataset`.")
            label = item.get(CommonKeys.LABEL)
            self._rows[item.get("index", len(self._rows))] = Row(
                _path(item),
                label if isinstance(label, int) else -1,  # a `label` may also be the path of a mask
                embedding.detach().float().cpu().numpy(),
            )

    def gather(self) -> ClipEmbeddings:
        """The table of all processes together, on each of them; a clip that several have seen is one row."""
        gathered = ClipEmbeddings()
        tables = idist.all_gather(self._rows) if idist.get_world_size() > 1 else [self._rows]
        for table in tables:
            gathered._rows.update(table)
        return gathered

    @property
    def _sorted(self) -> list[Row]:
        return [self._rows[index] for index in sorted(self._rows)]

    @property
    def embeddings(self) -> np.ndarray:
        """float32 ``(N, D)``; ``(0, 0)`` without clips."""
        return np.stack([row.embedding for row in self._sorted]) if self._rows else np.empty((0, 0), np.float32)

    @property
    def labels(self) -> np.ndarray:
        """int64 ``(N,)`` class indices, -1 for a clip without one."""
        return np.array([row.label for row in self._sorted], dtype=np.int64)

    @property
    def paths(self) -> list[str]:
        """Path of each of the N clips."""
        return [row.path for row in self._sorted]

    def labeled(self, role: str) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings ``(M, D)`` and class indices ``(M,)`` of the clips that have one.

        Args:
            role: what the clips are, for the message of the error.

        Raises:
            ValueError: when no clip has a class index.
        """
        has_label = self.labels >= 0
        if not has_label.any():
            raise ValueError(f"None of the {len(self)} {role} clips has a class index, an integer `label`.")
        return self.embeddings[has_label], self.labels[has_label]


def embed_clips(network: nn.Module, loader: Iterable[dict[str, Any]], device: str | torch.device) -> ClipEmbeddings:
    """Compute the embeddings of all clips, in evaluation mode, without gradient and in float32.

    Random states and the network's mode are as before when it is done, so that it may run amid a training; nothing
    is compiled. With several processes each embeds what its loader gives, and all get the table of all clips.

    Args:
        network: from clips ``(B, C, T, H, W)`` to embeddings ``(B, D)``.
        loader: batches with ``image`` ``(B, C, T, H, W)`` and what :meth:`ClipEmbeddings.add` needs; their messages
            under ``broken`` are ignored.
        device: where the network is.

    Example::

        clips = embed_clips(EndoFM.from_preset("tiny"), loader, "cpu")
        clips.embeddings, clips.labels, clips.paths
    """
    table = ClipEmbeddings()
    with (
        torch.random.fork_rng(devices=[]),  # iterating over a DataLoader draws a seed
        torch.compiler.set_stance("force_eager"),
        torch.autocast(torch.device(device).type, enabled=False),
        eval_mode(network),
    ):
        for batch in loader:
            if len(batch[CommonKeys.IMAGE]) > 0:
                embeddings = network(convert_to_tensor(batch[CommonKeys.IMAGE], device=device, track_meta=False))
                table.add(split_clips(batch), embeddings)
    return table.gather()


def _path(item: Mapping[str, Any]) -> str:
    image = item.get(CommonKeys.IMAGE)
    if "path" not in item and isinstance(image, MetaTensor):
        return str(image.meta[ImageMetaKey.FILENAME_OR_OBJ])
    return str(item["path"])
