# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events, State
from monai.utils import CommonKeys

from endofm_monai.engines import VideoEvaluator
from endofm_monai.handlers.rows import Report, Rows
from endofm_monai.metrics import bootstrap_intervals, classification_scores
from endofm_monai.metrics.classification import decide, labels_to_one_hot
from endofm_monai.utils import write_csv, write_json
from endofm_monai.visualize import plot_confusion

__all__ = ["ClassificationReport"]

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What is predicted of a window of a video; or of N of them, each field stacked."""

    video: Any
    group: Any  # videos of one group are not independent of each other
    probabilities: np.ndarray  # (C,)
    label: np.ndarray  # class index (), or (C,) 0 or 1 where classes do not exclude each other

    def scores(self, items: Any = ...) -> dict[str, float]:
        """Scores of some of N."""
        return classification_scores(self.probabilities[items], self.label[items])

    def confusion(self) -> np.ndarray:
        """Counts ``(C, C)`` of N, true classes in rows."""
        return labels_to_one_hot(self.label, self.probabilities.shape[1]).T @ decide(self.probabilities)


def _levels(rows: list[Prediction]) -> dict[str, Prediction]:
    """The predictions for videos, the mean of those of their windows, and for single windows ("clip")."""
    videos: dict[str, list[Prediction]] = {}
    for row in rows:
        videos.setdefault(row.video, []).append(row)
    means = [row[0]._replace(probabilities=np.mean([r.probabilities for r in row], axis=0)) for row in videos.values()]
    return {
        level: Prediction(*map(np.array, zip(*of, strict=True))) for level, of in (("video", means), ("clip", rows))
    }


class ClassificationReport(Report):
    """Key metric: a score of the predictions, one a video, the mean of those of its windows.

    All scores of :func:`endofm_monai.metrics.classification_scores` are metrics of the evaluator, as ``video_f1``, and
    for single windows as ``clip_f1``; those that are undefined are left out. With ``output_dir`` there are

    * ``metrics.json``: these scores, null with a reason where undefined, for videos with their 95 % intervals by the
      bootstrap over groups; confusion matrices; the protocol, and what could not be read;
    * ``predictions.csv``: the label and the class probabilities of each video;
    * ``confusion.png``: the confusion matrices.

    The evaluator goes through videos; or through batches of windows, which it decollates, with class probabilities
    ``(C,)`` as ``pred``. Items are those of :func:`endofm_monai.data.load_labeled_clips`.

    Args:
        score: the score that the evaluator compares, for example ``"f1"`` or ``"macro_f1"``.
        output_dir: folder to write to.
        class_names: names of the classes.
        protocol: which data chose the weights and which are reported, for the reader of ``metrics.json``.
        resamples: number of bootstrap resamples.
    """

    def __init__(
        self,
        score: str,
        output_dir: str | os.PathLike | None = None,
        class_names: Sequence[str] = (),
        protocol: str = "",
        resamples: int = 1000,
    ) -> None:
        super().__init__(output_dir)
        self.score = score
        self.class_names = list(class_names)
        self.protocol = protocol
        self.resamples = resamples
        self._broken = Rows()

    def collect(self, engine: Engine) -> None:
        """Note the predictions for windows, also of videos that break off."""
        self._broken.attach_broken(engine)
        if isinstance(engine, VideoEvaluator):
            self.rows.attach_pieces(engine, self.row, keep_broken=True)
        else:
            self.rows.attach(engine)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect_batch)

    def row(self, state: State) -> Prediction:
        """The prediction for a window."""
        return _prediction(state.item, state.answer["probabilities"])

    def _collect_batch(self, engine: Engine) -> None:
        outputs = engine.state.output
        # decollating a batch may leave more items than clips: the longest of the metadata counts
        for item, output in zip(engine.state.batch[: len(outputs)], outputs, strict=True):
            self.rows[int(item["index"])] = [_prediction(item, output[CommonKeys.PRED])]

    def metrics(self, rows: list[Prediction], name: str) -> dict[str, float]:
        """The key metric, and all scores."""
        levels = _levels(rows)
        scores = {level: predictions.scores() for level, predictions in levels.items()}
        if self.score not in scores["video"]:
            known = ", ".join(scores["video"])
            raise ValueError(f"There is no score {self.score!r} for these classes; there are {known}.")
        if math.isnan(scores["video"][self.score]):
            raise ValueError(
                f"The score {self.score!r} is undefined for the {len(levels['video'].video)} videos of the evaluation: "
                "they do not hold all classes that it needs. Add such videos, or choose another score."
            )
        named = {f"{level}_{key}": value for level, values in scores.items() for key, value in values.items()}
        return {name: scores["video"][self.score], **{k: value for k, value in named.items() if not math.isnan(value)}}

    def write(self, engine: Engine, rows: Rows) -> None:
        """Write the report."""
        levels = _levels(rows.flat())
        videos, path = levels["video"], self.output_dir / "metrics.json"
        report = {"protocol": self.protocol, "epoch": engine.state.epoch, "class_names": self.class_names}
        report |= {"unreadable": list(self._broken), **{level: self._describe(p) for level, p in levels.items()}}
        for name, interval in bootstrap_intervals(videos.scores, videos.group, resamples=self.resamples).items():
            if report["video"]["scores"][name]["value"] is not None:
                report["video"]["scores"][name]["interval_95"] = list(interval)
        write_json(path, report)
        table = zip(videos.video, videos.label, videos.probabilities, strict=True)
        write_csv(
            self.output_dir / "predictions.csv",
            ["video", "label", *self.class_names],
            (
                [name, " ".join(map(str, np.atleast_1d(label))), *(f"{p:.6f}" for p in row)]
                for name, label, row in table
            ),
        )
        scores = ", ".join(
            f"{k} {s['value']:.3f}" for k, s in report["video"]["scores"].items() if s["value"] is not None
        )
        logger.info(f"{self.protocol}: {len(videos.video)} videos, {scores}; details in {path}")
        if videos.label.ndim == 1:
            matrices = {level: predictions.confusion() for level, predictions in levels.items()}
            plot_confusion(matrices, self.class_names, self.output_dir / "confusion.png")

    def _describe(self, predictions: Prediction) -> dict[str, Any]:
        """Numbers, scores and confusion matrix of one level."""
        counts = labels_to_one_hot(predictions.label, len(self.class_names)).sum(axis=0).tolist()
        found = ", ".join(f"{count} {name}" for name, count in zip(self.class_names, counts, strict=True))
        undefined = {"value": None, "undefined": f"needs items with and without a class, found {found}"}
        level: dict[str, Any] = {
            "number": len(predictions.video),
            "number_by_class": dict(zip(self.class_names, counts, strict=True)),
            "scores": {k: {**undefined} if math.isnan(v) else {"value": v} for k, v in predictions.scores().items()},
        }
        return level | ({"confusion_matrix": predictions.confusion().tolist()} if predictions.label.ndim == 1 else {})


def _prediction(item: dict[str, Any], probabilities: torch.Tensor) -> Prediction:
    group = item["group"].item() if isinstance(item["group"], torch.Tensor) else item["group"]
    label = np.asarray(item[CommonKeys.LABEL]).astype(int)
    return Prediction(item["video"], group, probabilities.detach().double().cpu().numpy(), label)
