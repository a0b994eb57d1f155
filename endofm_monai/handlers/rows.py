# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events, State
from monai.config import PathLike

from endofm_monai.engines import VideoEvents
from endofm_monai.utils import check_writable


class Rows(dict[Any, list[Any]]):
    """What a handler notes of an epoch: rows by the place of their item in the datalist.

    So :meth:`gather` puts those of all processes in order, and what several of them have seen counts once.
    """

    def attach(self, engine: Engine) -> None:
        """Forget all rows when an epoch starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.clear())

    def attach_pieces(self, engine: Engine, row: Callable[[State], Any], keep_broken: bool = False) -> None:
        """Note a ``row`` of each piece of the videos of a :class:`endofm_monai.engines.VideoEvaluator`.

        Those of a video that breaks off are forgotten, unless ``keep_broken``.
        """
        self.attach(engine)
        engine.add_event_handler(VideoEvents.VIDEO_STARTED, lambda e: self.update({_place(e): []}))
        engine.add_event_handler(VideoEvents.PIECE_COMPLETED, lambda e: self[_place(e)].append(row(e.state)))
        if not keep_broken:
            engine.add_event_handler(VideoEvents.VIDEO_BROKEN, lambda e: self.pop(_place(e), None))

    def attach_broken(self, engine: Engine) -> None:
        """Note the messages about clips that could not be read."""

        def note(engine: Engine) -> None:
            self.update({message: [message] for message in engine.state.batch.get("broken", [])})

        self.attach(engine)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, note)

    def gather(self) -> Rows:
        """The rows of all processes, which all must call it, in order."""
        return Rows(sorted(reduce(or_, idist.all_gather(dict(self))).items()))

    def flat(self) -> list[Any]:
        """All rows in one list."""
        return [row for rows in self.values() for row in rows]


def _place(engine: Engine) -> int:
    return int(engine.state.item["index"])


@dataclass(eq=False)
class Report(ABC):
    """Key metric of a :class:`endofm_monai.engines.VideoEvaluator`, made of a row a piece.

    With ``output_dir`` the first process also writes a report, when an evaluation is the best of its run so far.
    Without one it chooses weights, and what leaves it undefined is refused.
    """

    output_dir: PathLike | None = None
    rows: Rows = field(default_factory=Rows, init=False)

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        lack = self._lack(engine.data_loader.dataset.data)
        if lack and self.output_dir is None:
            raise ValueError(f"{name!r}, which chooses the weights, is undefined: {lack}.")
        self._collect(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score, name)
        if self.output_dir is not None and idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, check_writable, self.output_dir)
            engine.add_event_handler(Events.COMPLETED, self._finish, Path(self.output_dir))

    def _lack(self, items: Sequence[dict[str, Any]]) -> str:
        """What leaves the key metric of these items undefined, whatever is predicted; refuses what is no metric."""
        return ""

    def _collect(self, engine: Engine) -> None:
        self.rows.attach_pieces(engine, self._row)

    def _score(self, engine: Engine, name: str) -> None:
        self.gathered = self.rows.gather()
        if not self.gathered.flat():
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        engine.state.metrics.update(self._metrics(self.gathered.flat(), name))

    def _finish(self, engine: Engine, folder: Path) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch:
            names = [item.get("name") for item in engine.data_loader.dataset.data]
            self._write(engine, folder, [name for place, name in enumerate(names) if place not in self.gathered])

    @abstractmethod
    def _row(self, state: State) -> Any:
        """What is noted of a piece."""

    @abstractmethod
    def _metrics(self, rows: list[Any], name: str) -> dict[str, float]:
        """The key metric under its ``name``, perhaps among others."""

    @abstractmethod
    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        """Write the report of the ``gathered`` rows; ``skipped`` are the names of items without any."""
