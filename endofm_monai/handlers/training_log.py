# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import logging
import math
import time
from collections import defaultdict

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch.utils.tensorboard import SummaryWriter

__all__ = ["TrainingLogHandler", "UnhealthyTrainingError"]

logger = logging.getLogger(__name__)


class UnhealthyTrainingError(RuntimeError):
    """The training cannot come to a good end; the message says what to look at."""


class TrainingLogHandler:
    """Says how a :class:`ClipTrainer` gets on: to TensorBoard, in one line an epoch; stops a loss that is not finite.

    Each optimizer step logs the loss, the norm of the gradients (where a :class:`GradientHandler` measures it) and the
    learning rate (the largest of all parameter groups). Each epoch logs their means, ``clips_per_second`` of all
    processes and ``waiting``, the share of time spent waiting for data. The means are also in
    ``engine.state.metrics``.

    Args:
        log_dir: folder of the TensorBoard log; None writes none.
    """

    def __init__(self, log_dir: str | None = None) -> None:
        self.log_dir = log_dir
        self._writer: SummaryWriter | None = None
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps = 0
        self._clips = 0
        self._waited = 0.0
        self._epoch_started = self._fetch_started = time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._fetch)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._fetched)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._count)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.log_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log_epoch)

    def _start(self, engine: Engine) -> None:
        # a federated client runs its trainer again and again
        if self._writer is None and self.log_dir is not None and idist.get_rank() == 0:
            self._writer = SummaryWriter(self.log_dir)

    def _fetch(self) -> None:
        self._fetch_started = time.perf_counter()

    def _fetched(self) -> None:
        self._waited += time.perf_counter() - self._fetch_started

    def _count(self, engine: Engine) -> None:
        images = engine.state.output[CommonKeys.IMAGE]
        self._clips += len(images) if isinstance(images, torch.Tensor) else len(images[0])  # clips, or a list of views

    def check_loss(self, engine: Engine) -> None:
        """Stop before a non-finite loss reaches the weights.

        Raises:
            UnhealthyTrainingError: when the loss is NaN or infinite.
        """
        loss = engine.state.output.get(CommonKeys.LOSS)
        if loss is not None and not math.isfinite(loss):
            raise UnhealthyTrainingError(
                f"The loss is {float(loss)} in iteration {engine.state.iteration} (epoch {engine.state.epoch}). "
                "Look at `gradient_norm` and `lr` in TensorBoard: a smaller learning rate, a longer warm-up, or `amp` "
                "with bfloat16 instead of float16 are the usual remedies."
            )

    def step_values(self, engine: Engine) -> dict[str, torch.Tensor | float]:
        """What is logged of an optimizer step, by name."""
        values = {"lr": max(group["lr"] for group in engine.optimizer.param_groups)}
        if CommonKeys.LOSS in engine.state.output:
            values["loss"] = engine.state.output[CommonKeys.LOSS]
        if hasattr(engine.state, "gradient_norm"):
            values["gradient_norm"] = engine.state.gradient_norm
        return values

    def log_step(self, engine: Engine) -> None:
        """Log the numbers of one optimizer step."""
        self._steps += 1
        for name, value in self.step_values(engine).items():
            self._sums[name] += float(value)
            if self._writer is not None:
                self._writer.add_scalar(f"step/{name}", float(value), engine.state.iteration)

    def epoch_values(self, engine: Engine) -> dict[str, float]:
        """Means of the steps of an epoch, clips per second and share of waiting, by name."""
        seconds = time.perf_counter() - self._epoch_started
        means = {name: total / max(self._steps, 1) for name, total in self._sums.items()}
        clips_per_second = self._clips * idist.get_world_size() / seconds
        return {**means, "clips_per_second": clips_per_second, "waiting": self._waited / seconds}

    def log_epoch(self, engine: Engine) -> None:
        """Log the means of one epoch."""
        means = self.epoch_values(engine)
        engine.state.metrics.update(means)
        if idist.get_rank() == 0:
            values = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in means.items()]
            logger.info(" | ".join([f"epoch {engine.state.epoch}/{engine.state.max_epochs}", *values]))
        if self._writer is not None:
            for name, value in means.items():
                self._writer.add_scalar(f"epoch/{name}", value, engine.state.epoch)
            self._writer.flush()
