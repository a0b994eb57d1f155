# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from endofm_monai.metrics import bootstrap_intervals, classification_scores
from endofm_monai.metrics.classification import decide, labels_to_one_hot
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import plot_confusion

__all__ = ["ClassificationMetric", "ClassificationReport", "ClipPredictions", "Predictions"]

logger = logging.getLogger(__name__)


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


class ClassificationMetric:
    """Key metric of a MONAI evaluator: a score of the predictions, one a video.

    The prediction for a video is the mean of the class probabilities of its clips. All scores of
    :func:`endofm_monai.metrics.classification_scores` are set in ``engine.state.metrics``, as ``video_f1`` and for the
    clips on their own as ``clip_f1``; those that are undefined are left out.

    Args:
        score: the score that the evaluator compares, for example ``"f1"`` or ``"macro_f1"``.
    """

    def __init__(self, score: str) -> None:
        self.score = score
        self._predictions = ClipPredictions()

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        self._predictions.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.compute, name)

    def compute(self, engine: Engine, name: str) -> None:
        """Set the metrics; with several processes, all must call it.

        Raises:
            ValueError: when there is no such score, or it is undefined for the clips that were evaluated.
        """
        videos, clips = self._predictions.videos(), self._predictions.clips()
        scores = classification_scores(videos.probabilities, videos.labels)
        if self.score not in scores:
            raise ValueError(f"There is no score {self.score!r} for these classes; there are {', '.join(scores)}.")
        if math.isnan(scores[self.score]):
            raise ValueError(
                f"The score {self.score!r} is undefined for the {len(videos)} videos of the evaluation: they do not "
                "hold all classes that it needs. Add such videos, or choose another score."
            )
        engine.state.metrics[name] = scores[self.score]
        levels = {"video": scores, "clip": classification_scores(clips.probabilities, clips.labels)}
        for level, values in levels.items():
            engine.state.metrics.update({f"{level}_{k}": v for k, v in values.items() if not math.isnan(v)})


class ClassificationReport:
    """Writes how well a MONAI evaluator's network classifies videos.

    When an evaluation is the best of its run so far (by the evaluator's key metric), the first process writes

    * ``<output_dir>/metrics.json``: the protocol, the scores of :func:`endofm_monai.metrics.classification_scores` for
      videos (mean probabilities of their clips), with their 95 % intervals by the bootstrap over groups (by default
      each video is one), and for single clips, null with a reason where a score is undefined; confusion matrices; and
      the videos that could not be read, for which no other one steps in;
    * ``<output_dir>/predictions.csv``: the label and the class probabilities of each video;
    * ``<output_dir>/confusion.png``: the confusion matrices.

    Args:
        output_dir: folder to write to.
        class_names: names of the classes.
        protocol: which data chose the weights and which are reported, for the reader of ``metrics.json``.
        resamples: number of bootstrap resamples.
    """

    def __init__(
        self, output_dir: str | os.PathLike, class_names: Sequence[str], protocol: str, resamples: int = 1000
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.protocol = protocol
        self.resamples = resamples
        self._predictions = ClipPredictions()
        self._broken: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator that has a key metric."""
        self._predictions.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._clear)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._note_broken)
        engine.add_event_handler(Events.COMPLETED, self)

    def _clear(self) -> None:
        self._broken.clear()

    def _note_broken(self, engine: Engine) -> None:
        self._broken.update(engine.state.batch.get("broken", []))

    def __call__(self, engine: Engine) -> None:
        """Write the report; with several processes, all must call it."""
        videos, clips = self._predictions.videos(), self._predictions.clips()
        broken = idist.all_gather(self._broken) if idist.get_world_size() > 1 else [self._broken]
        if idist.get_rank() > 0 or engine.state.best_metric_epoch != engine.state.epoch:
            return
        levels = {"video": videos, "clip": clips}
        report = {
            "protocol": self.protocol,
            "epoch": engine.state.epoch,
            "class_names": self.class_names,
            "unreadable": sorted(set.union(*broken)),
            "video": self._level(videos, with_intervals=True),
            "clip": self._level(clips, with_intervals=False),
        }
        with atomic_path(self.output_dir / "metrics.json") as temporary:
            temporary.write_text(json.dumps(report, indent=4) + "\n", encoding="utf-8")
        self._write_predictions(videos)
        summary = ", ".join(
            f"{n} {s['value']:.3f}" for n, s in report["video"]["scores"].items() if s["value"] is not None
        )
        logger.info(f"{self.protocol}: {len(videos)} videos, {summary}; details in {self.output_dir / 'metrics.json'}")
        if videos.labels.ndim == 1:
            matrices = {level: _confusion(predictions) for level, predictions in levels.items()}
            plot_confusion(matrices, self.class_names, self.output_dir / "confusion.png")

    def _level(self, predictions: Predictions, with_intervals: bool) -> dict[str, Any]:
        def scores_of(items: np.ndarray) -> dict[str, float]:
            return classification_scores(predictions.probabilities[items], predictions.labels[items])

        count = labels_to_one_hot(predictions.labels, len(self.class_names)).sum(axis=0)
        numbers = dict(zip(self.class_names, count.tolist(), strict=True))
        scores: dict[str, Any] = {}
        for name, value in scores_of(np.arange(len(predictions))).items():
            scores[name] = {"value": value}
            if math.isnan(value):
                found = ", ".join(f"{number} {name}" for name, number in numbers.items())
                scores[name] = {"value": None, "undefined": f"needs items with and without a class, found {found}"}
        if with_intervals:
            intervals = bootstrap_intervals(scores_of, predictions.groups, resamples=self.resamples)
            for name, interval in intervals.items():
                if scores[name]["value"] is not None:
                    scores[name]["interval_95"] = list(interval)
        level: dict[str, Any] = {"number": len(predictions), "number_by_class": numbers, "scores": scores}
        if predictions.labels.ndim == 1:
            level["confusion_matrix"] = _confusion(predictions).tolist()
        return level

    def _write_predictions(self, videos: Predictions) -> None:
        with (
            atomic_path(self.output_dir / "predictions.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["video", "label", *self.class_names])
            for name, label, probabilities in zip(videos.names, videos.labels, videos.probabilities, strict=True):
                text = " ".join(map(str, np.atleast_1d(label)))
                writer.writerow([name, text, *(f"{probability:.6f}" for probability in probabilities)])


def _confusion(predictions: Predictions) -> np.ndarray:
    """Counts ``(C, C)``, true classes in rows."""
    truth = labels_to_one_hot(predictions.labels, predictions.probabilities.shape[1])
    return truth.T @ decide(predictions.probabilities)
