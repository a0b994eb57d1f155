# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks import eval_mode
from monai.utils import CommonKeys

from endofm_monai.data import result_path
from endofm_monai.networks import unwrap
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import KeyFrame, plot_timeline

__all__ = ["VideoResults"]

KEY_FRAMES = 3


@dataclass
class Window:
    """What is known of one window of a video."""

    index: int  # in the dataset
    begin: float  # seconds
    end: float
    probabilities: list[float]


@dataclass
class Progress:
    """What is known so far of one video."""

    windows: list[Window] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    frames: int | None = None
    fps: float | None = None
    reading_seconds: float = 0.0
    network_seconds: float = 0.0


class VideoResults:
    """Writes what a MONAI evaluator's network says of each video, as soon as all windows of a video are done.

    ``<output_dir>/videos/<video>.json`` holds the probabilities of the classes (the mean over all windows that could
    be read), those of each window, and the seconds that the evaluator waited for the reading and spent in the network;
    its ``status`` is ``"ok"``, ``"damaged"`` (some windows could not be read) or ``"unreadable"``, with the messages
    under ``problems``. In the end ``<output_dir>/predictions.csv`` has a row for each of these files. No more than the
    windows' probabilities is kept of a video, so its length is no matter.

    Results of other weights or settings are not mixed: ``<output_dir>/settings.json`` tells them.

    Args:
        output_dir: folder to write to.
        class_names: names of the classes.
        multi_label: classes do not exclude each other: the prediction is a list of those above 0.5.
        save_pictures: also draw ``<video>.png``: the probabilities over time, and frames of the windows in which the
            predicted class is likeliest, with the attention of the class token.
        settings: whatever the results depend on besides the weights.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        class_names: Sequence[str],
        multi_label: bool = False,
        save_pictures: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.multi_label = multi_label
        self.save_pictures = save_pictures
        self.settings = {"class_names": self.class_names, "multi_label": multi_label, **(settings or {})}
        self._progress: dict[str, Progress] = defaultdict(Progress)
        self._clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator of :class:`endofm_monai.data.VideoWindows`, after what loads its weights."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._lap)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._note_reading)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_windows)
        engine.add_event_handler(Events.COMPLETED, self.write_table)

    def start(self, engine: Engine) -> None:
        """Count the windows of each video, and compare the settings with those of a former run.

        Raises:
            FileExistsError: when the folder holds results of other weights or settings.
        """
        self._expected = Counter(item["video"] for item in engine.data_loader.dataset.data)
        digest = hashlib.sha256()
        for value in unwrap(engine.network).state_dict().values():
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy())
        settings = {**self.settings, "weights_sha256": digest.hexdigest()}
        path = self.output_dir / "settings.json"
        if not path.exists():
            _write_json(path, settings)
        former = json.loads(path.read_text(encoding="utf-8"))
        if differing := [key for key in {**settings, **former} if settings.get(key) != former.get(key)]:
            raise FileExistsError(
                f"{self.output_dir} holds results with other settings ({', '.join(differing)}); "
                "choose another `output_dir`."
            )

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before

    def _note_reading(self, engine: Engine) -> None:
        seconds, batch = self._lap(), engine.state.batch
        videos = list(batch.get("video", []))
        for message in batch.get("broken", []):
            # one name may be the beginning of another
            name = max((name for name in self._expected if message.startswith(f"{name}: ")), key=len)
            self._progress[name].problems.append(message.removeprefix(f"{name}: "))
            videos.append(name)
        for name in videos:
            self._progress[name].reading_seconds += seconds / len(videos)
        self._batch_videos = set(videos)

    def _note_windows(self, engine: Engine) -> None:
        probabilities = [output[CommonKeys.PRED].float().cpu().tolist() for output in engine.state.output]
        seconds = self._lap()  # the copy has waited for the device
        for item, values in zip(engine.state.batch[: len(probabilities)], probabilities, strict=True):
            progress, meta = self._progress[item["video"]], item[CommonKeys.IMAGE].meta
            progress.frames, progress.fps = int(meta["frames"]), float(meta["fps"])
            first, last = (int(meta["frame_indices"][place]) for place in (0, -1))
            window = Window(int(item["index"]), first / progress.fps, (last + 1) / progress.fps, values)
            progress.windows.append(window)
            progress.network_seconds += seconds / len(probabilities)
        for name in self._batch_videos:
            progress = self._progress[name]
            if len(progress.windows) + len(progress.problems) == self._expected[name]:
                self._finish(engine, name, self._progress.pop(name))

    def _finish(self, engine: Engine, name: str, progress: Progress) -> None:
        probabilities = np.array([window.probabilities for window in progress.windows])
        result: dict[str, Any] = {
            "video": name,
            "status": "ok" if not progress.problems else "damaged" if progress.windows else "unreadable",
            "problems": sorted(set(progress.problems)),
            "prediction": None,
            "probabilities": None,
            "frames": progress.frames,
            "fps": progress.fps,
            "reading_seconds": progress.reading_seconds,
            "network_seconds": progress.network_seconds,
            "windows_used": len(progress.windows),
            "windows": [self._describe(window) for window in progress.windows],
        }
        if progress.windows:
            mean = probabilities.mean(axis=0)
            likeliest = int(mean.argmax())
            result["probabilities"] = self._by_class(mean.tolist())
            result["prediction"] = self.class_names[likeliest]
            if self.multi_label:
                result["prediction"] = [n for n, value in zip(self.class_names, mean, strict=True) if value > 0.5]
            if self.save_pictures:
                title = f"{name}: " + ", ".join(f"{n} {v:.2f}" for n, v in result["probabilities"].items())
                picture = result_path(self.output_dir / "videos", name).with_suffix(".png")
                spans = [(window.begin, window.end) for window in progress.windows]
                frames = self._key_frames(engine, progress.windows, likeliest)
                plot_timeline(spans, probabilities, self.class_names, frames, title, picture)
        _write_json(result_path(self.output_dir / "videos", name), result)

    def _key_frames(self, engine: Engine, windows: list[Window], likeliest: int) -> list[KeyFrame]:
        """Frames of the windows in which a class is likeliest, read once more, in the order of time."""
        backbone = unwrap(engine.network).backbone
        best = sorted(windows, key=lambda window: window.probabilities[likeliest])[-KEY_FRAMES:]
        key_frames = []
        for window in sorted(best, key=lambda window: window.begin):
            clip = engine.data_loader.dataset[window.index][CommonKeys.IMAGE]
            times = np.asarray(clip.meta["frame_indices"]) / float(clip.meta["fps"])
            clip = clip.as_tensor()
            with eval_mode(backbone):
                attention = backbone.attention_maps(clip[None].to(engine.state.device))[0]
            count = -(-KEY_FRAMES // len(best))  # a video of few windows shows several frames of each
            for place in np.linspace(0, len(times) - 1, 2 * count + 1).astype(int)[1::2]:
                key_frames.append(KeyFrame(float(times[place]), clip[:, place], attention[place]))
        return key_frames

    def _describe(self, window: Window) -> dict[str, Any]:
        return {
            "begin_seconds": round(window.begin, 3),
            "end_seconds": round(window.end, 3),
            "probabilities": self._by_class(window.probabilities),
        }

    def _by_class(self, probabilities: list[float]) -> dict[str, float]:
        return dict(zip(self.class_names, (round(value, 6) for value in probabilities), strict=True))

    def write_table(self) -> None:
        """Write ``predictions.csv`` of all results in the folder, also those of former runs."""
        columns = ["windows_used", "frames", "fps", "reading_seconds", "network_seconds"]
        with (
            atomic_path(self.output_dir / "predictions.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["video", "status", "prediction", *self.class_names, *columns])
            for path in sorted((self.output_dir / "videos").rglob("*.json")):
                result = json.loads(path.read_text(encoding="utf-8"))
                probabilities = result["probabilities"] or {}
                prediction = result["prediction"]
                writer.writerow(
                    [
                        result["video"],
                        result["status"],
                        " ".join(prediction) if isinstance(prediction, list) else prediction,
                        *(probabilities.get(name) for name in self.class_names),
                        *(result[column] for column in columns),
                    ]
                )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
