# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events, State
from monai.networks import eval_mode
from monai.utils import CommonKeys

from endofm_monai.data import natural_key, result_path
from endofm_monai.engines import VideoEvaluator
from endofm_monai.handlers.results import Report, ResultSaver, Rows, decollated
from endofm_monai.metrics import bootstrap_intervals, classification_scores
from endofm_monai.metrics.classification import decide, labels_to_one_hot
from endofm_monai.utils import printable, read_json, write_csv, write_json
from endofm_monai.visualize import KeyFrame, plot_confusion, plot_timeline

__all__ = ["ClassificationReport", "ProbabilitySaver"]

logger = logging.getLogger(__name__)
KEY_FRAMES = 3


class Prediction(NamedTuple):
    """What is predicted of a window of a video; or of N of them, each field stacked."""

    video: Any
    group: Any  # videos of one group are not independent of each other
    probabilities: np.ndarray  # (C,)
    label: np.ndarray  # class index (), or (C,) 0 or 1 where classes do not exclude each other

    def scores(self, items: Any = ...) -> dict[str, float]:
        """Scores of some of N."""
        return classification_scores(self.probabilities[items], self.label[items])


def _levels(rows: list[Prediction]) -> dict[str, Prediction]:
    """The predictions for videos, the mean of those of their windows, and for single windows ("clip")."""
    videos: dict[str, list[Prediction]] = {}
    for row in rows:
        videos.setdefault(row.video, []).append(row)
    means = [of[0]._replace(probabilities=np.mean([row.probabilities for row in of], axis=0)) for of in videos.values()]
    return {"video": _stack(means), "clip": _stack(rows)}


def _stack(rows: list[Prediction]) -> Prediction:
    return Prediction(*map(np.array, zip(*rows, strict=True)))


@dataclass(eq=False)
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
    """

    score: str | None = None  # that the evaluator compares; None is "f1" of two classes, of others "macro_f1"
    class_names: Sequence[str] = ()
    protocol: str = ""  # which data chose the weights and which are reported, for the reader of `metrics.json`
    resamples: int = 1000  # of the bootstrap; 0 for no intervals

    keeps_broken: ClassVar = True

    def _lack(self, items: Sequence[dict[str, Any]]) -> str:
        labels = np.array([np.asarray(item[CommonKeys.LABEL]) for item in items if CommonKeys.LABEL in item], int)
        if not len(labels) or not self.class_names:
            return ""
        best = self._compared(classification_scores(labels_to_one_hot(labels, len(self.class_names)), labels))
        advice = "add such videos, or choose another `selection_score`"
        return f"the validation does not hold all classes that it needs; {advice}" if math.isnan(best) else ""

    def _compared(self, scores: dict[str, float]) -> float:
        score = self.score or ("f1" if "f1" in scores else "macro_f1")
        names = [name for name in scores if name != "calibration_error"]  # of which the smallest would be the best
        if score not in names:
            raise ValueError(f"There is no score {score!r} for these classes; there are {', '.join(names)}.")
        return scores[score]

    def _judged_by(self) -> dict[str, Any]:
        return {**super()._judged_by(), "selection_score": self.score}

    def _collect(self, engine: Engine) -> None:
        self._broken = Rows()
        self._broken.attach_broken(engine)
        if isinstance(engine, VideoEvaluator):
            super()._collect(engine)
        else:
            self.rows.attach(engine)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect_batch)

    def _row(self, state: State) -> Prediction:
        return _prediction(state.item, state.answer["probabilities"])

    def _collect_batch(self, engine: Engine) -> None:
        for item, output in decollated(engine):
            self.rows[int(item["index"])] = [_prediction(item, output[CommonKeys.PRED])]

    def _metrics(self, rows: list[Prediction], name: str) -> dict[str, float]:
        self._unreadable = list(self._broken.gather())
        scores = {level: predictions.scores() for level, predictions in _levels(rows).items()}
        named = {f"{level}_{key}": value for level, values in scores.items() for key, value in values.items()}
        defined = {key: value for key, value in named.items() if not math.isnan(value)}
        return {name: self._compared(scores["video"]), **defined}

    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        levels = _levels(self.gathered.flat())
        videos = levels["video"]
        described = {level: self._describe(predictions) for level, predictions in levels.items()}
        scores = described["video"]["scores"]
        if self.resamples:
            for name, interval in bootstrap_intervals(videos.scores, videos.group, resamples=self.resamples).items():
                if scores[name]["value"] is not None:
                    scores[name]["interval"] = list(interval)
        head = {"protocol": self.protocol, "epoch": engine.state.epoch, "class_names": self.class_names}
        write_json(folder / "metrics.json", {**head, "unreadable": self._unreadable, **described})
        labels = (" ".join(map(str, np.atleast_1d(label))) for label in videos.label)
        rows = zip(videos.video, labels, videos.probabilities, strict=True)
        table = ([name, label, *(f"{value:.6f}" for value in probabilities)] for name, label, probabilities in rows)
        write_csv(folder / "predictions.csv", ["video", "label", *self.class_names], table)
        text = ", ".join(f"{name} {score['value']:.3f}" for name, score in scores.items() if score["value"] is not None)
        logger.info(f"{self.protocol}: {len(videos.video)} videos, {text}; details in {folder / 'metrics.json'}")
        if videos.label.ndim == 1:
            matrices = {level: np.array(about["confusion_matrix"]) for level, about in described.items()}
            plot_confusion(matrices, self.class_names, folder / "confusion.png")

    def _describe(self, predictions: Prediction) -> dict[str, Any]:
        """Numbers, scores and confusion matrix of one level."""
        truth = labels_to_one_hot(predictions.label, len(self.class_names))
        counts = dict(zip(self.class_names, truth.sum(axis=0).tolist(), strict=True))
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        undefined = {"value": None, "undefined": f"needs items with and without a class, found {found}"}
        scores = {k: {**undefined} if math.isnan(v) else {"value": v} for k, v in predictions.scores().items()}
        level: dict[str, Any] = {"number": len(predictions.video), "number_by_class": counts, "scores": scores}
        if predictions.label.ndim == 1:
            level["confusion_matrix"] = (truth.T @ decide(predictions.probabilities)).tolist()
        return level


def _prediction(item: dict[str, Any], probabilities: torch.Tensor) -> Prediction:
    group = item["group"].item() if isinstance(item["group"], torch.Tensor) else item["group"]
    label = np.asarray(item[CommonKeys.LABEL]).astype(int)
    return Prediction(item["video"], group, probabilities.detach().double().cpu().numpy(), label)


@dataclass(eq=False)
class ProbabilitySaver(ResultSaver):
    """Writes what class each video is, and when; see :class:`ResultSaver`.

    ``<output_dir>/videos/<name>.json`` holds the probabilities of the classes (the mean over all windows that could be
    read), those of each window, and the seconds that were waited for the reading and spent in the network. In the end
    ``<output_dir>/predictions.csv`` has a row for each of these files, also those of former runs. ``<name>.png`` draws
    the probabilities over time, and frames of the windows in which the predicted class is likeliest, with the attention
    of the class token.
    """

    class_names: Sequence[str] = ()
    multi_label: bool = False  # classes do not exclude each other: the prediction is a list of those above 0.5
    save_pictures: bool = False

    also: ClassVar = ("class_names", "multi_label")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.results_dir = self.output_dir / "videos"
        self._clock, self._doing = 0.0, "reading_seconds"
        self._forget()

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        engine.add_event_handler(Events.COMPLETED, self._write_table)
        network = engine.predictor.network
        self._waits_for = "network_seconds"  # after an answer, until a hook of the network says otherwise
        if self.save_pictures and not hasattr(getattr(network, "backbone", None), "attention_maps"):
            raise ValueError("`save_pictures` shows where a network looks, which an exported one does not tell.")
        if not isinstance(network, torch.jit.ScriptModule):  # has no hooks: all its time is the network's
            self._waits_for = "reading_seconds"
            network.register_forward_pre_hook(lambda *_: self._lap("network_seconds"))

    def _lap(self, following: str) -> None:
        """Count the seconds since the last call for what was done meanwhile."""
        before, self._clock = self._clock, time.perf_counter()
        self._seconds[self._doing] += self._clock - before
        self._doing = following

    def _forget(self) -> None:
        self._windows: list[np.ndarray] = []  # the numbers of the frames of each
        self._probabilities: list[list[float]] = []
        self._best: list[list[tuple[float, int]]] = [[] for _ in self.class_names]  # by class, windows likeliest of it
        self._views: dict[int, torch.Tensor] = {}  # what is cut out of them for the network
        self._seconds = {"reading_seconds": 0.0, "network_seconds": 0.0}

    def _begin(self, engine: Engine) -> None:
        self._clock, self._doing = time.perf_counter(), self._waits_for

    def _add(self, engine: Engine) -> None:
        self._lap(self._waits_for)  # the copy of the answer has waited for the device
        state = engine.state
        self._windows.append(state.answer["frames"].numpy())
        self._probabilities.append(state.answer["probabilities"].tolist())
        if self.save_pictures:
            found = zip(self._best, self._probabilities[-1], strict=True)
            self._best = [nlargest(KEY_FRAMES, [*best, (value, state.piece)]) for best, value in found]
            wanted = {window for best in self._best for _, window in best}
            self._views = {window: view for window, view in self._views.items() if window in wanted}
            if state.piece in wanted:
                self._views[state.piece] = engine.predictor.crop(state.frame)
            self._clock = time.perf_counter()

    def _end(self, engine: Engine) -> dict[str, Any]:
        result: dict[str, Any] = {"prediction": None, "probabilities": None, **self._seconds}
        result |= {"windows_used": len(self._windows), "windows": []}
        if not self._windows:
            return result
        probabilities, spans = np.array(self._probabilities), self._spans(engine.state)
        mean = probabilities.mean(axis=0)
        likeliest = int(mean.argmax())
        prediction: Any = self.class_names[likeliest]
        if self.multi_label:
            prediction = [name for name, value in zip(self.class_names, mean, strict=True) if value > 0.5]
        windows = [
            {"begin_seconds": round(begin, 3), "end_seconds": round(end, 3), "probabilities": self._by_class(values)}
            for (begin, end), values in zip(spans, probabilities, strict=True)
        ]
        if self.save_pictures:
            name = engine.state.item["name"]
            scores = ", ".join(f"{key} {value:.2f}" for key, value in self._by_class(mean).items())
            title = printable(f"{name}: {scores}")
            picture = result_path(self.results_dir, name).with_suffix(".png")
            plot_timeline(spans, probabilities, self.class_names, self._key_frames(engine, likeliest), title, picture)
        return result | {"prediction": prediction, "probabilities": self._by_class(mean), "windows": windows}

    def _spans(self, state: State) -> list[tuple[float, float]]:
        """Beginning and end of each window, in s: one of a single frame stands for those up to the next window."""
        times = np.append(state.shown_at, state.shown_at[-1] + 1 / state.info.fps)  # a frame is shown until the next is
        begins = [window[0] for window in self._windows]
        following = [*begins[1:], 0 if state.problem else len(times) - 1]
        stops = np.maximum(following, [window[-1] + 1 for window in self._windows])
        return list(zip(times[begins].tolist(), times[stops].tolist(), strict=True))

    def _key_frames(self, engine: Engine, likeliest: int) -> list[KeyFrame]:
        """Frames of the windows in which a class is likeliest, in the order of time."""
        backbone, windows = engine.network.backbone, sorted(window for _, window in self._best[likeliest])
        count = -(-KEY_FRAMES // len(windows))  # a video of few windows shows several frames of each
        key_frames = []
        for window in windows:
            view, times = self._views[window], engine.state.shown_at[self._windows[window]]
            with eval_mode(backbone):
                seen = engine.predictor.normalize(view)[None].to(engine.state.device)
                attention, pixels = backbone.attention_maps(seen)[0], (view * 255).round().to(torch.uint8)
            for place in np.linspace(0, len(times) - 1, 2 * count + 1).astype(int)[1::2]:
                key_frames.append(KeyFrame(float(times[place]), pixels[:, place], attention[place]))
        return key_frames

    def _by_class(self, probabilities: np.ndarray) -> dict[str, float]:
        return dict(zip(self.class_names, (round(value, 6) for value in probabilities.tolist()), strict=True))

    def _write_table(self) -> None:
        columns = ["windows_used", "frames", "fps", "reading_seconds", "network_seconds"]
        rows = []
        results = self.results_dir.rglob("[!.]*.json")
        names = (str(path.relative_to(self.results_dir).with_suffix("")) for path in results)
        for name in sorted(names, key=natural_key):
            result = read_json(result_path(self.results_dir, name), dict)
            probabilities, prediction = result["probabilities"] or {}, result["prediction"]
            text = " ".join(prediction) if isinstance(prediction, list) else prediction
            values = [*map(probabilities.get, self.class_names), *(result[column] for column in columns)]
            rows.append([result["video"], name, result["status"], text, *values])
        header = ["video", "name", "status", "prediction", *self.class_names, *columns]
        write_csv(self.output_dir / "predictions.csv", header, rows)
