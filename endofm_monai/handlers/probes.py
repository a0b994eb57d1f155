# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.utils import CommonKeys

from endofm_monai.engines import StudentTeacherTrainer
from endofm_monai.handlers.embeddings import ClipEmbeddings, amid_training, attach_embeddings, embed_clips
from endofm_monai.handlers.log import Board
from endofm_monai.handlers.pictures import AttentionPictureHandler, ViewsPictureHandler
from endofm_monai.handlers.results import Rows, describe_items
from endofm_monai.metrics import knn_probe, linear_probe, retrieval
from endofm_monai.metrics.probe import NEIGHBORS, TEMPERATURE
from endofm_monai.networks import unwrap
from endofm_monai.utils import PathLike, read_json, write_json
from endofm_monai.visualize import plot_curves, plot_embeddings
from endofm_monai.visualize.charts import MIN_CLIPS
from endofm_monai.visualize.page import Section, table, write_page

__all__ = ["KNNProbeHandler", "LearningReport", "ProbeEvaluation"]

logger = logging.getLogger(__name__)

CURVES = ("loss", "teacher_entropy", "effective_rank", "spread", "gradient_norm", "lr")


@dataclass(eq=False)
class KNNProbeHandler:
    """Follows during the pre-training how well the nearest training clips predict a clip's class.

    At intervals the scores of :func:`endofm_monai.metrics.knn_probe` of the backbone (of a pair the teacher's) are
    logged and set in ``engine.state.metrics`` as ``knn_accuracy`` and so on; after other epochs they are absent there.
    The training itself does not change. A datalist without two classes in training and a label in validation is said
    once, and there is no probe.
    """

    train_loader: DataLoader  # of the training clips, transformed as for validation; see :func:`embed_clips`
    val_loader: DataLoader  # of the clips whose classes are predicted
    interval: int = 1  # epochs between two probes
    k: int = NEIGHBORS
    temperature: float = TEMPERATURE
    output_dir: PathLike | None = None  # of a TensorBoard log, in its subfolder `knn`; None writes none

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"`interval` must be at least 1 epoch, but got {self.interval}.")
        self._board = Board(self.output_dir and Path(self.output_dir) / "knn")

    def attach(self, engine: Engine) -> None:
        """Register with a :class:`PretrainingTrainer`, ahead of handlers that show its metrics."""
        if len(_classes(self.train_loader)) < 2 or not _classes(self.val_loader):
            if idist.get_rank() == 0:
                logger.info("No k-NN probe: it needs class indices as `label`, of two classes or more in training.")
            return
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._probe)

    def _probe(self, engine: Engine) -> None:
        state, backbone = engine.state, unwrap(engine.network).backbone
        state.metrics = {name: value for name, value in state.metrics.items() if not name.startswith("knn_")}
        if state.epoch % self.interval:
            return
        train, val = (embed_clips(backbone, loader, state.device) for loader in (self.train_loader, self.val_loader))
        scores = _knn(train, val, self.k, self.temperature)
        state.metrics.update(scores)
        if idist.get_rank() == 0:
            logger.info(f"epoch {state.epoch} | {_text(scores) or 'no k-NN probe of what could be read'}")
        self._board.write({f"epoch/{name}": score for name, score in scores.items()}, state.epoch)


@dataclass(eq=False)
class ProbeEvaluation:
    """Judges a backbone, the network of a MONAI evaluator of labeled clips, by a k-NN and a linear probe.

    The scores of :func:`endofm_monai.metrics.knn_probe` and :func:`endofm_monai.metrics.linear_probe` are logged, set
    in its metrics as ``knn_accuracy``, ``linear_accuracy`` and so on, and written with the numbers of clips by class.
    """

    train_loader: DataLoader  # of the training clips; see :func:`embed_clips`
    output_dir: PathLike
    k: int = NEIGHBORS
    temperature: float = TEMPERATURE
    _rows: Rows = field(default_factory=Rows, init=False)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator, ahead of handlers that show its metrics."""
        attach_embeddings(self._rows, engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._probe)

    def _probe(self, engine: Engine) -> None:
        evaluated = ClipEmbeddings.of(self._rows.gather()).labeled("evaluated")
        train = embed_clips(unwrap(engine.network), self.train_loader, engine.state.device).labeled("training")
        knn, linear = knn_probe(*train, *evaluated, self.k, self.temperature), linear_probe(*train, *evaluated)
        scores = _named(knn=knn, linear=linear)
        engine.state.metrics.update(scores)
        if idist.get_rank() == 0:
            logger.info(_text(scores))
            report = {"training_clips": _count(train[1]), "evaluated_clips": _count(evaluated[1])}
            neighbors = {"k": min(self.k, len(train[1])), "temperature": self.temperature}
            write_json(Path(self.output_dir, "probe.json"), {**report, "knn": {**neighbors, **knn}, "linear": linear})


@dataclass(eq=False)
class LearningReport:
    """Shows whether a pre-training learns: what the teacher can do before and after it, on a page of pictures.

    When the training starts, or is first resumed with it, and when it ends, the teacher's backbone is judged by
    :func:`retrieval` and, where the clips have labels, :func:`knn_probe`. ``<output_dir>/report.html`` shows both, the
    curves of loss and health by epoch, the latest views and attention and a map of the embeddings; the numbers are also
    in ``learning.json``, which a resumed training continues. The training itself does not change.
    """

    train_loader: DataLoader  # of the training clips, transformed as for validation; see :func:`embed_clips`
    test_loader: DataLoader  # of the clips whose classes are predicted
    window_loader: DataLoader  # two augmented windows of each test clip, in the orders of an :class:`EpochSampler`
    output_dir: PathLike  # that of the handlers that draw views and attention
    repeats: int = 8  # draws of the windows
    k: int = 5
    record: dict[str, Any] = field(default_factory=dict, init=False)

    def attach(self, engine: Engine) -> None:
        """Register with a :class:`StudentTeacherTrainer`, behind its :class:`HealthHandler`."""
        if not isinstance(engine, StudentTeacherTrainer):
            raise ValueError("learning.json reports on a student and its teacher: leave it out with vcl.json.")
        self.folder, self.path = Path(self.output_dir), Path(self.output_dir, "learning.json")
        self.test = describe_items(self.test_loader.dataset.data)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)  # a checkpoint has been loaded by then
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        if self.record:
            return
        epoch = engine.state.epoch
        former = self._former() if epoch > 1 else {}
        self.record["epochs"] = [row for row in former.get("epochs", []) if row["epoch"] < epoch]
        self.record["before"] = former.get("before") or self._judge(engine, "before")
        self.record["test"] = self.test

    def _former(self) -> dict[str, Any]:
        """The record that a resumed training goes on with, if there is one; refuses that of other test clips."""
        former = read_json(self.path, dict) if self.path.exists() else {}
        if (was := former.get("test", self.test)) != self.test:
            found = f"was made of {was}, and the test is {self.test} now"
            raise ValueError(f"{self.path}: {found}; resume with the former one.")
        return former

    def _note(self, engine: Engine) -> None:
        values = {name: engine.state.metrics[name] for name in CURVES if name in engine.state.metrics}
        self.record["epochs"].append({"epoch": engine.state.epoch, **values})
        if idist.get_rank() == 0:
            write_json(self.path, self.record)

    def _finish(self, engine: Engine) -> None:
        if not self.record:  # a complete training was resumed: its report stays, unless it broke off
            self.record = self._former()
            if "before" not in self.record or "after" in self.record:
                return
        self.record["uniform"] = math.log(engine.loss_function.center.numel())
        self.record["after"] = self._judge(engine, "after")
        if idist.get_rank() == 0:
            self._write_page(engine.state.iteration)
            write_json(self.path, self.record)  # last: with this the report is complete
            logger.info(f"What was learned is shown in {self.folder / 'report.html'}")

    def _judge(self, engine: Engine, when: str) -> dict[str, float]:
        """Scores of the teacher's backbone, by name; draws its map of the embeddings."""
        backbone, device = unwrap(engine.network).backbone, engine.state.device
        windows = self._windows(backbone, device)
        scores = {"retrieval": sum(retrieval(*pairs.unbind(1)) for pairs in windows) / len(windows)}
        train, test = (embed_clips(backbone, loader, device) for loader in (self.train_loader, self.test_loader))
        scores |= _knn(train, test, min(self.k, len(train.paths)))
        self.record["videos"] = videos = windows.shape[1]
        if idist.get_rank() == 0:
            (path := self.folder / f"embeddings_{when}.png").unlink(missing_ok=True)  # of a former training
            if len(test.paths) >= MIN_CLIPS:
                plot_embeddings(test.embeddings, test.labels, path)
            logger.info(f"{when} training | {_text(scores)} (retrieval by chance: {1 / videos:.3f})")
        return scores

    def _windows(self, backbone: torch.nn.Module, device: torch.device) -> torch.Tensor:
        """Embeddings ``(repeats, N, 2, D)`` of both windows of each clip."""
        rows = Rows()
        with amid_training(backbone, device):
            for repeat in range(self.repeats):
                self.window_loader.sampler.set_epoch(repeat)
                for batch in self.window_loader:
                    if len(batch[CommonKeys.IMAGE]) > 0:
                        views = [backbone(view.to(device)).float().cpu() for view in batch[CommonKeys.IMAGE]]
                        pairs = zip(batch["index"], torch.stack(views, dim=1), strict=True)
                        rows.update({(repeat, int(index)): [pair] for index, pair in pairs})
        if not (found := rows.gather().flat()):
            raise ValueError("There is no window to judge the pre-training by: no test clip could be read.")
        return torch.stack(found).unflatten(0, (self.repeats, -1))

    def _write_page(self, iteration: int) -> None:
        record, videos = self.record, self.record["videos"]
        epochs, uniform = record["epochs"], record["uniform"]
        curves = {name: {row["epoch"]: row[name] for row in epochs if name in row} for name in CURVES}
        plot_curves(curves, {"loss": uniform, "teacher_entropy": uniform}, self.folder / "curves.png")
        before, after = record["before"], record["after"]  # which may lack a score, where a clip could not be read
        scores = [(name, *(f"{of.get(name, math.nan):.3f}" for of in (before, after))) for name in before]
        meaning = (
            "Retrieval: how often an augmented window of a video's first half finds one of its second half, and the "
            f"reverse, among all {videos} test videos (chance {1 / videos:.2f}). k-NN: what the nearest training "
            "videos say about a test video's label."
        )
        share = epochs[-1]["loss"] / uniform
        health = f"The loss ends at {share:.0%} of that of uniform targets, which the dotted lines show."
        maps = [self.folder / f"embeddings_{when}.png" for when in ("before", "after")]
        sections = [
            Section("What it can do", meaning, body=table(["", f"before epoch {epochs[0]['epoch']}", "after"], scores)),
            Section("Loss and health", health, pictures=[self.folder / "curves.png"]),
            Section("Test videos before and after", pictures=[path for path in maps if path.exists()]),
            Section("Views of a clip", pictures=ViewsPictureHandler.latest(self.folder, iteration)),
            Section("Attention of the teacher", pictures=AttentionPictureHandler.latest(self.folder, iteration)),
        ]
        write_page(self.folder / "report.html", "Pre-training of Endo-FM", sections)


def _classes(loader: DataLoader) -> set[int]:
    labels = (item.get(CommonKeys.LABEL) for item in loader.dataset.data)
    return {label for label in labels if isinstance(label, int)}


def _knn(train: ClipEmbeddings, test: ClipEmbeddings, k: int, temperature: float = TEMPERATURE) -> dict[str, float]:
    """Scores by name; none where the clips that could be read lack two classes in training, or a label in the test."""
    if len(set(train.labels[train.labels >= 0])) < 2 or not (test.labels >= 0).any():
        return {}
    return _named(knn=knn_probe(*train.labeled("training"), *test.labeled("test"), k, temperature))


def _count(labels: np.ndarray) -> dict[str, int]:
    return {str(label): number for label, number in sorted(Counter(labels.tolist()).items())}


def _named(**probes: dict[str, float]) -> dict[str, float]:
    return {f"{probe}_{name}": score for probe, scores in probes.items() for name, score in scores.items()}


def _text(scores: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in scores.items())
