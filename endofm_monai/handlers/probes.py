# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.data import DataLoader
from monai.utils import CommonKeys

from endofm_monai.handlers.embeddings import ClipEmbeddings, attach_embeddings, embed_clips
from endofm_monai.handlers.log import Board
from endofm_monai.handlers.rows import Rows
from endofm_monai.metrics import knn_probe, linear_probe
from endofm_monai.networks import unwrap
from endofm_monai.utils import write_json

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class KNNProbeHandler:
    """Follows during the pre-training how well the nearest training clips predict a clip's class.

    Every ``interval`` epochs the backbone (of a pair the teacher's) embeds the labeled clips, and the scores of
    :func:`endofm_monai.metrics.knn_probe` are logged and set in ``engine.state.metrics`` as ``knn_accuracy`` and so
    on; after other epochs they are absent there. The training itself does not change. A datalist without two classes
    in training and a label in validation is said once, and there is no probe.

    Args:
        train_loader: loader of the training clips, transformed as for validation; see :func:`embed_clips`.
        val_loader: loader of the clips whose classes are predicted.
        interval: epochs between two probes.
        k: see :func:`endofm_monai.metrics.knn_probe`, as ``temperature``.
        temperature: of the neighbors' votes.
        output_dir: folder of a TensorBoard log, in its subfolder ``knn``; None writes none.
    """

    train_loader: DataLoader
    val_loader: DataLoader
    interval: int = 1
    k: int = 20
    temperature: float = 0.07
    output_dir: PathLike | None = None

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
        metrics, epoch = engine.state.metrics, engine.state.epoch
        for name in [name for name in metrics if name.startswith("knn_")]:
            del metrics[name]
        if epoch % self.interval:
            return
        backbone = unwrap(engine.network).backbone
        train = embed_clips(backbone, self.train_loader, engine.state.device).labeled("training")
        val = embed_clips(backbone, self.val_loader, engine.state.device).labeled("validation")
        scores = _named(knn=knn_probe(*train, *val, self.k, self.temperature))
        metrics.update(scores)
        if idist.get_rank() == 0:
            logger.info(f"epoch {epoch} | " + _text(scores))
        self._board.write({f"epoch/{name}": score for name, score in scores.items()}, epoch)


@dataclass(eq=False)
class ProbeEvaluation:
    """Judges a backbone, the network of a MONAI evaluator of labeled clips, by a k-NN and a linear probe.

    When the evaluator is done, the training clips are embedded, and the scores of
    :func:`endofm_monai.metrics.knn_probe` and :func:`endofm_monai.metrics.linear_probe` are logged, set in its metrics
    as ``knn_accuracy``, ``linear_accuracy`` and so on, and written with the numbers of clips of each class.

    Args:
        train_loader: loader of the training clips; see :func:`embed_clips`.
        output_dir: the folder to write to.
        filename: name of the JSON file.
        k: see :func:`endofm_monai.metrics.knn_probe`, as ``temperature``.
        temperature: of the neighbors' votes.
    """

    train_loader: DataLoader
    output_dir: PathLike
    filename: str = "probe.json"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        self._rows = Rows()

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
            write_json(Path(self.output_dir, self.filename), {**report, "knn": {**neighbors, **knn}, "linear": linear})


def _classes(loader: DataLoader) -> set[int]:
    labels = (item.get(CommonKeys.LABEL) for item in loader.dataset.data)
    return {label for label in labels if isinstance(label, int)}


def _count(labels: np.ndarray) -> dict[str, int]:
    """Number of clips of each class, by class index."""
    return {str(label): number for label, number in sorted(Counter(labels.tolist()).items())}


def _named(**probes: dict[str, float]) -> dict[str, float]:
    return {f"{probe}_{name}": score for probe, scores in probes.items() for name, score in scores.items()}


def _text(scores: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in scores.items())
