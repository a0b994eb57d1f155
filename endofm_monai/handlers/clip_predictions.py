# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

__all__ = ["ClipPredictions", "Predictions"]


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of N videos or clips, with their labels.

    Attributes:
        names: name of the video of each.
        groups: those of one group are not independent of each other.
        probabilities: ``(N, C)``.
        labels: class indices ``(N,)``, or ``(N, C)`` 0 or 1 where classes do not exclude each other.
    """

    names: list[str]
    groups: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class Row(NamedTuple):
    """One clip."""

    video: str
    group: str
    probabilities: np.ndarray
    label: np.ndarray


class ClipPredictions:
    """Collects what a MONAI evaluator predicts of each clip, and averages it over the clips of each video.

    The evaluator must decollate; items have ``pred``, class probabilities ``(C,)``, and ``label``, ``video``, ``group``
    and ``index``, as a :class:`endofm_monai.data.ClipDataset` of :func:`endofm_monai.data.load_labeled_clips` has.
    """

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def _clear(self) -> None:
        self._rows.clear()

    def _collect(self, engine: Engine) -> None:
        outputs = engine.state.output
        # decollating a batch may leave more items than clips: the longest of the metadata counts
        for item, output in zip(engine.state.batch[: len(outputs)], outputs, strict=True):
            self._rows[item["index"]] = Row(
                item["video"],
                item["group"],
                output[CommonKeys.PRED].detach().double().cpu().numpy(),
                np.asarray(item[CommonKeys.LABEL]).astype(int),
            )

    def clips(self) -> Predictions:
        """The clips that all processes have seen, in the order of the datalist.

        Raises:
            ValueError: when there are none.
        """
        tables: Iterable[dict[int, Row]] = [self._rows]
        if idist.get_world_size() > 1:
            tables = idist.all_gather(self._rows)
        rows: dict[int, Row] = {}  # a clip that several processes have seen is one row
        for table in tables:
            rows.update(table)
        if not rows:
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        return _predictions([rows[index] for index in sorted(rows)])

    def videos(self) -> Predictions:
        """The same by video: the mean of the probabilities of its clips."""
        clips = self.clips()
        videos: dict[str, list[Row]] = {}
        for row in map(Row, clips.names, clips.groups, clips.probabilities, clips.labels):
            videos.setdefault(row.video, []).append(row)
        means = (np.mean([row.probabilities for row in rows], axis=0) for rows in videos.values())
        return _predictions(
            [rows[0]._replace(probabilities=mean) for rows, mean in zip(videos.values(), means, strict=True)]
        )


def _predictions(rows: list[Row]) -> Predictions:
    videos, groups, probabilities, labels = zip(*rows, strict=True)
    return Predictions(list(videos), np.array(groups), np.stack(probabilities), np.stack(labels))
