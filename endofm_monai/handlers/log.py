# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar, Timer
from matplotlib.image import imread
from monai.config import PathLike
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, is_scalar
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from endofm_monai.data import count_clips
from endofm_monai.engines import VideoEvaluator, VideoEvents
from endofm_monai.utils import check_writable, printable

__all__ = ["ProgressHandler", "TrainingLogHandler", "UnhealthyTrainingError"]

logger = logging.getLogger(__name__)

# parts of a checkpoint, a `TrainingLogHandler` and a `BackboneNote`, that files of former versions lack
LOG, BACKBONE = "log", "backbone"


class UnhealthyTrainingError(RuntimeError):
    """The training cannot come to a good end; the message says what to look at."""


@dataclass(eq=False)
class Board:
    """Numbers and pictures in a TensorBoard log, written by the first process.

    The first ones take the place of those of a killed run that were written from their step on.
    """

    folder: PathLike | None  # of the log; None writes none
    _writer: SummaryWriter | None = field(default=None, init=False)

    def write(self, values: Mapping[str, Any], step: int, flush: bool = True) -> None:
        """Add what is a number, or the path of a PNG file, at a step."""
        if self.folder is None or idist.get_rank() > 0:
            return
        self._writer = self._writer or SummaryWriter(str(self.folder), purge_step=step)
        for name, value in values.items():
            if is_scalar(value):
                self._writer.add_scalar(name, float(value), step)
            elif isinstance(value, Path):
                self._writer.add_image(name, imread(value)[..., :3], step, dataformats="HWC")
        if flush:
            self._writer.flush()

    def attach(self, engine: Engine) -> None:
        """Write the metrics of an engine by epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.write(engine.state.metrics, engine.state.epoch))

    def flush(self) -> None:
        """Bring all to the disk."""
        if self._writer is not None:
            self._writer.flush()


@dataclass(eq=False)
class TrainingLogHandler:
    """Says how a training gets on: to TensorBoard, in one line an epoch; stops a loss or weights that are not finite.

    Each optimizer step logs, by the iteration, the loss (the mean of the iterations that it has learned from), the norm
    of the gradients (where a :class:`GradientHandler` measures it) and the largest learning rate of all parameter
    groups. Each epoch logs their means, ``clips_per_second`` of all processes and ``waiting``, the share of time spent
    waiting for data, which are also in ``engine.state.metrics``. Checkpoints hold the means of an epoch so far.
    """

    log_dir: str | None = None  # folder of the TensorBoard log; None writes none

    def __post_init__(self) -> None:
        self.board = Board(self.log_dir)
        self._epoch, self._waiting = Timer(), Timer()
        self._reset()

    def attach(self, engine: Engine) -> None:
        """Register the handler with a :class:`endofm_monai.engines.ClipTrainer`."""
        self._epoch.attach(engine, Events.EPOCH_STARTED, resume=Events.GET_BATCH_STARTED)
        self._waiting.attach(engine, Events.EPOCH_STARTED, Events.GET_BATCH_COMPLETED, Events.GET_BATCH_STARTED)
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.EPOCH_STARTED, self._pause)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._count)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._check_loss)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._log_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log_epoch)
        engine.add_event_handler(Events.TERMINATE, self.board.flush)
        engine.further_checkpoint_parts[LOG] = self

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to log as if it had not stopped: sums and counts of the epoch, by name."""
        return {
            "sums": {str(name): total for name, total in self._sums.items()},
            "counts": {str(name): count for name, count in self._counts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of a checkpoint."""
        self._sums.update(state["sums"])
        self._counts.update(state["counts"])

    def _check(self) -> None:
        if self.log_dir is not None and idist.get_rank() == 0:
            check_writable(self.log_dir)

    def _pause(self) -> None:
        for timer in (self._epoch, self._waiting):
            timer.pause()  # what other handlers do before the first batch is not of the training

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()  # steps that have each value: one may end with a broken clip
        self._clips = 0
        self._learned: list[dict[str, torch.Tensor]] = []  # of the iterations of a step

    def _count(self, engine: Engine) -> None:
        self._clips += count_clips(engine.state.output[CommonKeys.IMAGE])

    def _check_loss(self, engine: Engine) -> None:
        """Stop before a loss that is not finite reaches the weights."""
        loss = engine.state.output.get(CommonKeys.LOSS, 0.0)
        if not math.isfinite(loss):
            raise _not_finite(f"The loss is {float(loss)}", engine)
        if CommonKeys.LOSS in engine.state.output:
            self._learned.append(self._loss_values(engine))

    def _loss_values(self, engine: Engine) -> dict[str, torch.Tensor]:
        """The loss of an iteration, and what it is made of, by name."""
        return {CommonKeys.LOSS: engine.state.output[CommonKeys.LOSS]}

    def _step_values(self, engine: Engine) -> dict[str, Any]:
        """What is logged of an optimizer step, by name, if it is not None."""
        learned, self._learned = self._learned, []
        means = torch.stack([torch.stack(list(values.values())) for values in learned]).mean(dim=0)
        return {
            "lr": max(group["lr"] for group in engine.optimizer.param_groups),
            **dict(zip(learned[0], means, strict=True)),
            "gradient_norm": getattr(engine.state, "gradient_norm", None),
        }

    def _log_step(self, engine: Engine) -> None:
        """Log a step; stop when one with a finite loss made weights that are not."""
        weights = [weight.detach() for group in engine.optimizer.param_groups for weight in group["params"]]
        values = {name: value for name, value in self._step_values(engine).items() if value is not None}
        values["weights"] = torch.nn.utils.get_total_norm(weights)
        tensors = {name: value.detach().float() for name, value in values.items() if isinstance(value, torch.Tensor)}
        values |= zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True)  # waits for the device once
        norm = values.pop("weights")
        for name, value in values.items():
            self._sums[name] += value
            self._counts[name] += 1
        self.board.write({f"step/{name}": value for name, value in values.items()}, engine.state.iteration, False)
        if not math.isfinite(norm):
            raise _not_finite("The weights are no longer finite", engine)

    def _epoch_values(self, engine: Engine) -> dict[str, float]:
        """What is logged of an epoch, by name."""
        seconds = self._epoch.value()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        clips_per_second = self._clips * idist.get_world_size() / seconds
        return {**means, "clips_per_second": clips_per_second, "waiting": self._waiting.value() / seconds}

    def _log_epoch(self, engine: Engine) -> dict[str, float]:
        means = self._epoch_values(engine)
        self._reset()
        engine.state.metrics.update(means)
        if idist.get_rank() == 0:
            values = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items()]
            logger.info(" | ".join([f"epoch {engine.state.epoch}/{engine.state.max_epochs}", *values]))
        self.board.write({f"epoch/{name}": value for name, value in means.items()}, engine.state.iteration)
        return means


def _not_finite(what: str, engine: Engine) -> UnhealthyTrainingError:
    state = engine.state
    return UnhealthyTrainingError(
        f"{what} in iteration {state.iteration} (epoch {state.epoch}). "
        "Look at `gradient_norm` and `lr` in TensorBoard: a smaller learning rate, a longer warm-up, or `amp` "
        "with bfloat16 instead of float16 are the usual remedies."
    )


@dataclass(eq=False)
class ProgressHandler:
    """A progress bar with the time left and, while training, the loss; through videos it moves with every frame."""

    description: str = "Epoch"

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer or evaluator, in the first process."""
        if idist.get_rank() > 0:
            return
        if not isinstance(engine, VideoEvaluator):
            ProgressBar(persist=True, desc=self.description).attach(engine, output_transform=self._loss)
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(VideoEvents.PIECE_COMPLETED, self._move)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self._move_to(engine.state.iteration))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._bar.close())

    def _start(self, engine: Engine) -> None:
        style = "{desc}{percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        self._bar = tqdm(total=engine.state.epoch_length, desc=self.description, bar_format=style)

    def _move(self, engine: Engine) -> None:
        state = engine.state
        frame = int(state.answer["frames"][-1]) if "frames" in state.answer else state.piece  # the last of a window
        where = f"{printable(state.item['name'])}, frame {frame + 1} of {state.info.frames}"
        self._bar.set_description(f"{self.description} {where}", refresh=False)
        self._move_to(state.iteration - 1 + (frame + 1) / state.info.frames)

    def _move_to(self, place: float) -> None:
        self._bar.update(place - self._bar.n)

    def _loss(self, output: Any) -> dict[str, float]:
        has_loss = isinstance(output, dict) and CommonKeys.LOSS in output
        return {"loss": float(output[CommonKeys.LOSS])} if has_loss else {}
