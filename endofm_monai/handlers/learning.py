# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.data import DataLoader
from monai.networks import eval_mode
from monai.utils import CommonKeys

from endofm_monai.engines import StudentTeacherTrainer
from endofm_monai.handlers.embeddings import embed_clips
from endofm_monai.handlers.rows import Rows
from endofm_monai.metrics import knn_probe, retrieval
from endofm_monai.networks import unwrap
from endofm_monai.utils import read_json, write_json
from endofm_monai.visualize import plot_curves, plot_embeddings
from endofm_monai.visualize.charts import MIN_CLIPS
from endofm_monai.visualize.page import Section, table, write_page

logger = logging.getLogger(__name__)

CURVES = ("loss", "teacher_entropy", "effective_rank", "spread", "gradient_norm", "lr")
MEANING = (
    "Retrieval: how often an augmented window of a video's first half finds one of its second half, and the reverse, "
    "among all {videos} test videos (chance {chance:.2f}). k-NN: what the nearest training videos say about a test "
    "video's label."
)


@dataclass(eq=False)
class LearningReport:
    """Shows whether a pre-training learns: what the teacher can do before and after it, on a page of pictures.

    When the training starts and when it ends, the teacher's backbone is judged by :func:`retrieval` and, where the
    clips have labels, :func:`knn_probe`. ``<output_dir>/report.html`` shows both, the curves of loss and health by
    epoch, the latest views and attention and a map of the embeddings, all of which is also in ``learning.json``, which
    a resumed training continues. The training itself does not change.

    Args:
        train_loader: loader of the training clips, transformed as for validation; see :func:`embed_clips`.
        test_loader: loader of the clips whose classes are predicted.
        window_loader: loader of two augmented windows of each test clip, the views of a :class:`RandAugmentViewsd`,
            in the orders of an :class:`EpochSampler`.
        output_dir: the folder to write to, that of the handlers that draw views and attention.
        repeats: number of draws of the windows.
        k: see :func:`knn_probe`.
    """

    train_loader: DataLoader
    test_loader: DataLoader
    window_loader: DataLoader
    output_dir: PathLike
    repeats: int = 8
    k: int = 5
    record: dict[str, Any] = field(default_factory=dict, init=False)

    def attach(self, engine: Engine) -> None:
        """Register with a :class:`StudentTeacherTrainer`, behind its :class:`HealthHandler`."""
        if not isinstance(engine, StudentTeacherTrainer):
            raise ValueError("learning.json reports on a student and its teacher: leave it out with vcl.json.")
        self.folder = Path(self.output_dir)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)  # a checkpoint has been loaded by then
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        if self.record:
            return
        path, epoch = self.folder / "learning.json", engine.state.epoch
        former = read_json(path, dict) if epoch > 1 and path.exists() else {}
        self.record["epochs"] = [row for row in former.get("epochs", []) if row["epoch"] < epoch]
        self.record["before"] = former.get("before") or self._judge(engine, "before")

    def _note(self, engine: Engine) -> None:
        values = {name: engine.state.metrics[name] for name in CURVES if name in engine.state.metrics}
        self.record["epochs"].append({"epoch": engine.state.epoch, **values})
        if idist.get_rank() == 0:
            write_json(self.folder / "learning.json", self.record)

    def _finish(self, engine: Engine) -> None:
        self.record["uniform"] = math.log(engine.loss_function.center.numel())
        self.record["after"] = self._judge(engine, "after")
        if idist.get_rank() == 0:
            write_json(self.folder / "learning.json", self.record)
            self._write_page()
            logger.info(f"What was learned is shown in {self.folder / 'report.html'}")

    def _judge(self, engine: Engine, when: str) -> dict[str, float]:
        """Scores of the teacher's backbone, by name; draws its map of the embeddings."""
        backbone, device = unwrap(engine.network).backbone, engine.state.device
        windows = self._windows(backbone, device)
        scores = {"retrieval": sum(retrieval(*pair) for pair in windows) / len(windows)}
        train, test = (embed_clips(backbone, loader, device) for loader in (self.train_loader, self.test_loader))
        if len(set(train.labels[train.labels >= 0])) > 1 and (test.labels >= 0).any():
            found = knn_probe(*train.labeled("training"), *test.labeled("test"), min(self.k, len(train.paths)))
            scores |= {f"knn_{name}": value for name, value in found.items()}
        self.record["videos"] = len(windows[0][0])
        if idist.get_rank() == 0:
            if len(test.paths) >= MIN_CLIPS:
                plot_embeddings(test.embeddings, test.labels, self.folder / f"embeddings_{when}.png")
            text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
            logger.info(f"{when} training | {text} (retrieval by chance: {1 / self.record['videos']:.3f})")
        return scores

    def _windows(self, backbone: torch.nn.Module, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Embeddings ``(N, D)`` of both windows of each clip, of each repeat."""
        rows = Rows()
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"), eval_mode(backbone):
            for repeat, batch in self._batches():
                pairs = torch.stack([backbone(view.to(device)).float() for view in batch[CommonKeys.IMAGE]], dim=1)
                rows.update({(repeat, int(i)): [pair] for i, pair in zip(batch["index"], pairs.cpu(), strict=True)})
        gathered = rows.gather()
        repeats = [[found[0] for place, found in gathered.items() if place[0] == r] for r in range(self.repeats)]
        if not gathered:
            raise ValueError("There is no window to judge the pre-training by: no test clip could be read.")
        first, second = (torch.stack([torch.stack(pairs)[:, side] for pairs in repeats]) for side in (0, 1))
        return list(zip(first, second, strict=True))

    def _batches(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for repeat in range(self.repeats):
            self.window_loader.sampler.set_epoch(repeat)
            yield from ((repeat, batch) for batch in self.window_loader if len(batch[CommonKeys.IMAGE]) > 0)

    def _write_page(self) -> None:
        record, epochs = self.record, self.record["epochs"]
        curves = {name: [row[name] for row in epochs] for name in CURVES if all(name in row for row in epochs)}
        plot_curves(
            curves, {"loss": record["uniform"], "teacher_entropy": record["uniform"]}, self.folder / "curves.png"
        )
        before, after = record["before"], record["after"]
        scores = [(name, f"{before[name]:.3f}", f"{after[name]:.3f}") for name in before]
        meaning = MEANING.format(videos=record["videos"], chance=1 / record["videos"])
        share = epochs[-1]["loss"] / record["uniform"]
        health = f"The loss ends at {share:.0%} of that of uniform targets, which the dotted lines show."
        latest = {name: sorted((self.folder / name).glob("*.png"))[-1:] for name in ("views", "attention")}
        maps = [self.folder / f"embeddings_{when}.png" for when in ("before", "after")]
        sections = [
            Section("What it can do", meaning, body=table(["", "before", "after"], scores)),
            Section("Loss and health", health, pictures=[self.folder / "curves.png"]),
            Section("Test videos before and after", pictures=[path for path in maps if path.exists()]),
            Section("Views of a clip", pictures=latest["views"]),
            Section("Attention of the teacher", pictures=latest["attention"]),
        ]
        write_page(self.folder / "report.html", "Pre-training of Endo-FM", sections)
