# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from endofm_monai.handlers.clip_embeddings import ClipEmbeddings
from endofm_monai.utils import atomic_path
from endofm_monai.visualize.embeddings import MIN_CLIPS, plot_embeddings

__all__ = ["EmbeddingSaver"]

logger = logging.getLogger(__name__)


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
