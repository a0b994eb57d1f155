# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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
from endofm_monai.utils import atomic_path
from endofm_monai.visualize.charts import MIN_CLIPS, plot_embeddings

__all__ = ["ClipEmbeddings", "EmbeddingSaver", "embed_clips"]

logger = logging.getLogger(__name__)


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


class EmbeddingSaver:
    """Writes one embedding a clip: the ``pred`` of a MONAI ``SupervisedEvaluator`` whose network is a backbone.

    When the evaluator is done, the first process writes, each file completely or not at all,

    * ``<filename>.npz`` with ``embeddings`` (float32, ``(N, D)``), ``labels`` (int64, ``(N,)``, -1 for a clip without
      class index) and ``paths`` (``(N,)`` strings), in the order of the datalist;
    * ``<filename>.csv`` with the same as columns ``path, label, e0, e1, ...``;
    * ``<filename>_broken.csv`` with a message for each clip that could not be read, if there are any;
    * ``<filename>.png``, a map of the embeddings, with ``plot``.

    When it stops with an error, each process writes what it has to ``<filename>.partial<rank>.npz`` and ``.csv``; the
    next complete run removes them. For that the saver must stand before MONAI's ``StatsHandler`` in the list of
    handlers, since ignite calls only the first one that raises the error again.

    Args:
        output_dir: the folder to write to.
        filename: name of the files without suffix.
        plot: draw the map, if there are at least three clips.
    """

    def __init__(self, output_dir: str | os.PathLike, filename: str = "embeddings", plot: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.filename = filename
        self.plot = plot
        self._clips = ClipEmbeddings()
        self._broken: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register the handler with a MONAI evaluator."""
        self._clips.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._note_broken)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.save_partial)

    def _start(self) -> None:
        self._broken.clear()

    def _note_broken(self, engine: Engine) -> None:
        self._broken.update(engine.state.batch.get("broken", []))

    def save(self) -> None:
        """Write the files; with several processes, all must call it."""
        clips = self._clips.gather()
        messages = idist.all_gather(self._broken) if idist.get_world_size() > 1 else [self._broken]
        if idist.get_rank() > 0:
            return
        broken = sorted(set.union(*messages))
        self._write(clips, self.filename)
        for stale in self.output_dir.glob(f"{self.filename}.partial*"):
            stale.unlink()
        listing = self.output_dir / f"{self.filename}_broken.csv"
        if broken:
            _write_csv(listing, ["message"], ([message] for message in broken))
        else:
            listing.unlink(missing_ok=True)
        summary = f"Wrote the embeddings of {len(clips)} clips to {self.output_dir / self.filename}.npz and .csv"
        if self.plot and len(clips) >= MIN_CLIPS:
            plot_embeddings(clips.embeddings, clips.labels, self.output_dir / f"{self.filename}.png")
            summary += ", and a map to .png"
        logger.info(f"{summary}; {len(broken)} broken clips" + (f" are listed in {listing}." if broken else "."))

    def save_partial(self, engine: Engine, error: BaseException) -> None:
        """Write what this process has computed, and raise the error again."""
        if len(self._clips) > 0:
            name = f"{self.filename}.partial{idist.get_rank()}"
            self._write(self._clips, name)
            logger.error(
                f"Stopped by an error; {len(self._clips)} embeddings are in {self.output_dir / name}.npz and .csv."
            )
        raise error

    def _write(self, clips: ClipEmbeddings, name: str) -> None:
        embeddings, labels, paths = clips.embeddings, clips.labels, clips.paths
        with atomic_path(self.output_dir / f"{name}.npz") as temporary:
            np.savez(temporary, embeddings=embeddings, labels=labels, paths=np.array(paths, dtype=str))
        rows = zip(paths, labels, embeddings, strict=True)
        _write_csv(
            self.output_dir / f"{name}.csv",
            ["path", "label", *(f"e{column}" for column in range(embeddings.shape[1]))],
            ([path, label, *(f"{value:.9g}" for value in embedding)] for path, label, embedding in rows),
        )


def _write_csv(path: Path, header: list[str], rows: Iterable[list]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
