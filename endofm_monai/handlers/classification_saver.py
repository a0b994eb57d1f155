# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks import eval_mode

from endofm_monai.data import result_path
from endofm_monai.handlers.savers import ResultSaver
from endofm_monai.utils import write_csv
from endofm_monai.visualize import KeyFrame, plot_timeline

__all__ = ["ClassificationSaver"]

KEY_FRAMES = 3


class ClassificationSaver(ResultSaver):
    """Writes what class each video is, and when; see :class:`ResultSaver`.

    ``<output_dir>/videos/<name>.json`` holds the probabilities of the classes (the mean over all windows that could be
    read), those of each window, and the seconds that were waited for the reading and spent in the network. In the end
    ``<output_dir>/predictions.csv`` has a row for each of these files, also those of former runs.

    Args:
        output_dir: folder to write to.
        class_names: names of the classes.
        multi_label: classes do not exclude each other: the prediction is a list of those above 0.5.
        save_pictures: also draw ``<name>.png``: the probabilities over time, and frames of the windows in which the
            predicted class is likeliest, with the attention of the class token.
        settings: see :class:`ResultSaver`.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        class_names: Sequence[str],
        multi_label: bool = False,
        save_pictures: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.multi_label = multi_label
        self.save_pictures = save_pictures
        own = {"class_names": self.class_names, "multi_label": multi_label}
        super().__init__(output_dir, None if settings is None else {**own, **settings})
        self.results_dir = self.output_dir / "videos"
        self.forget()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after what loads its weights."""
        super().attach(engine)
        engine.add_event_handler(Events.COMPLETED, self._write_table)
        if not isinstance(engine.network, torch.jit.ScriptModule):  # has no hooks: all its time is the network's
            engine.network.register_forward_pre_hook(lambda *_: self._lap("reading_seconds"))

    def _lap(self, doing: str) -> None:
        """Count the seconds since the last call."""
        before, self._clock = self._clock, time.perf_counter()
        self._seconds[doing] += self._clock - before

    def forget(self) -> None:
        """Forget a video."""
        self._probabilities: list[list[float]] = []
        self._seen: list[np.ndarray] = []  # when the frames of each window are, in seconds
        self._best: list[list[tuple[float, int]]] = [
            [] for _ in self.class_names
        ]  # the windows likeliest to be of each
        self._views: dict[int, torch.Tensor] = {}  # what the network sees of them
        self._seconds = {"reading_seconds": 0.0, "network_seconds": 0.0}

    def begin(self, engine: Engine) -> None:
        """Begin a video."""
        self._clock = time.perf_counter()

    def add(self, engine: Engine) -> None:
        """Take a window."""
        self._lap("network_seconds")  # the copy of the answer has waited for the device
        state = engine.state
        self._probabilities.append(state.answer["probabilities"].tolist())
        self._seen.append(state.answer["frames"].numpy() / state.info.fps)
        if self.save_pictures:
            for best, probability in zip(self._best, self._probabilities[-1], strict=True):
                best.append((probability, state.piece))
                best.sort()
                del best[:-KEY_FRAMES]
            wanted = {window for best in self._best for _, window in best}
            self._views = {window: view for window, view in self._views.items() if window in wanted}
            if state.piece in wanted:
                self._views[state.piece] = engine.predictor.normalize(engine.predictor.crop(state.frame))
            self._clock = time.perf_counter()

    def end(self, engine: Engine) -> dict[str, Any]:
        """Sum up, and draw the picture."""
        result: dict[str, Any] = {"prediction": None, "probabilities": None, **self._seconds, "windows_used": 0}
        if not self._probabilities:
            return {**result, "windows": []}
        probabilities, frame = np.array(self._probabilities), 1 / engine.state.info.fps
        spans = [(float(seconds[0]), float(seconds[-1]) + frame) for seconds in self._seen]
        mean = probabilities.mean(axis=0)
        likeliest = int(mean.argmax())
        result["prediction"] = self.class_names[likeliest]
        if self.multi_label:
            result["prediction"] = [n for n, value in zip(self.class_names, mean, strict=True) if value > 0.5]
        result["probabilities"] = self._by_class(mean)
        result["windows_used"] = len(spans)
        result["windows"] = [
            {"begin_seconds": round(begin, 3), "end_seconds": round(end, 3), "probabilities": self._by_class(values)}
            for (begin, end), values in zip(spans, probabilities, strict=True)
        ]
        if self.save_pictures:
            name = engine.state.item["name"]
            title = f"{name}: " + ", ".join(f"{n} {v:.2f}" for n, v in result["probabilities"].items())
            picture = result_path(self.results_dir, name).with_suffix(".png")
            plot_timeline(spans, probabilities, self.class_names, self._key_frames(engine, likeliest), title, picture)
        return result

    def _key_frames(self, engine: Engine, likeliest: int) -> list[KeyFrame]:
        """Frames of the windows in which a class is likeliest, in the order of time."""
        backbone, windows = engine.network.backbone, sorted(window for _, window in self._best[likeliest])
        count = -(-KEY_FRAMES // len(windows))  # a video of few windows shows several frames of each
        key_frames = []
        for window in windows:
            view, seconds = self._views[window], self._seen[window]
            with eval_mode(backbone):
                attention = backbone.attention_maps(view[None].to(engine.state.device))[0]
            for place in np.linspace(0, len(seconds) - 1, 2 * count + 1).astype(int)[1::2]:
                key_frames.append(KeyFrame(float(seconds[place]), view[:, place], attention[place]))
        return key_frames

    def _by_class(self, probabilities: np.ndarray) -> dict[str, float]:
        return dict(zip(self.class_names, (round(value, 6) for value in probabilities.tolist()), strict=True))

    def _write_table(self) -> None:
        columns = ["windows_used", "frames", "fps", "reading_seconds", "network_seconds"]
        rows = []
        for path in sorted(self.results_dir.rglob("*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            probabilities, prediction = result["probabilities"] or {}, result["prediction"]
            rows.append(
                [
                    result["video"],
                    result["status"],
                    " ".join(prediction) if isinstance(prediction, list) else prediction,
                    *(probabilities.get(name) for name in self.class_names),
                    *(result[column] for column in columns),
                ]
            )
        header = ["video", "status", "prediction", *self.class_names, *columns]
        write_csv(self.output_dir / "predictions.csv", header, rows)
