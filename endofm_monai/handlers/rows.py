# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events, State

from endofm_monai.engines import VideoEvents

__all__ = ["Report", "Rows"]


class Rows(dict[Any, list[Any]]):
    """What a handler notes of an epoch: rows by the place of their item in the datalist.

    So :meth:`gather` puts those of all processes in order, and what several of them have seen counts once.
    """

    def attach(self, engine: Engine) -> None:
        """Forget all rows when an epoch starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.clear())

    def attach_pieces(self, engine: Engine, row: Callable[[State], Any], keep_broken: bool = False) -> None:
        """Note a ``row`` of each piece that a :class:`endofm_monai.engines.VideoEvaluator` has an answer for.

        Those of a video that breaks off are forgotten, unless ``keep_broken``.
        """

        def place(engine: Engine) -> int:
            return int(engine.state.item["index"])

        self.attach(engine)
        engine.add_event_handler(VideoEvents.VIDEO_STARTED, lambda e: self.update({place(e): []}))
        engine.add_event_handler(VideoEvents.PIECE_COMPLETED, lambda e: self[place(e)].append(row(e.state)))
        if not keep_broken:
            engine.add_event_handler(VideoEvents.VIDEO_BROKEN, lambda e: self.pop(place(e), None))

    def attach_broken(self, engine: Engine) -> None:
        """Note the messages about clips that could not be read."""
        self.attach(engine)
        engine.add_event_handler(
            Events.GET_BATCH_COMPLETED,
            lambda e: self.update({text: [text] for text in e.state.batch.get("broken", [])}),
        )

    def gather(self) -> Rows:
        """The rows of all processes, which all must call it, in order."""
        tables = idist.all_gather(dict(self)) if idist.get_world_size() > 1 else [self]
        return Rows(sorted({place: rows for table in tables for place, rows in table.items()}.items()))

    def flat(self) -> list[Any]:
        """All rows in one list."""
        return [row for rows in self.values() for row in rows]


class Report(ABC):
    """Key metric of an evaluator, made of a row a piece; with ``output_dir`` it is written what there is to say.

    It is written by the first process, when an evaluation is the best of its run so far.
    """

    def __init__(self, output_dir: str | os.PathLike | None) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.rows = Rows()

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        self.collect(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score, name)
        if self.output_dir is not None:
            engine.add_event_handler(Events.COMPLETED, self._write)

    def collect(self, engine: Engine) -> None:
        """Note the rows."""
        self.rows.attach_pieces(engine, self.row)

    def _score(self, engine: Engine, name: str) -> None:
        self._gathered = self.rows.gather()
        if not self._gathered.flat():
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        engine.state.metrics.update(self.metrics(self._gathered.flat(), name))

    def _write(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            self.write(engine, self._gathered)

    @abstractmethod
    def row(self, state: State) -> Any:
        """What is noted of a piece."""

    @abstractmethod
    def metrics(self, rows: list[Any], name: str) -> dict[str, float]:
        """The key metric under its ``name``, perhaps among others."""

    @abstractmethod
    def write(self, engine: Engine, rows: Rows) -> None:
        """Write the report."""


def skipped_names(engine: Engine, rows: Rows) -> list[str]:
    """Names of the videos of which there are no rows."""
    items = engine.data_loader.dataset.data
    return [item["name"] for place, item in enumerate(items) if place not in rows]
