# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.metrics import compute_embedding_collapse
from monai.utils import CommonKeys, evenly_divisible_all_gather
from torch.utils.hooks import RemovableHandle
from torch.utils.tensorboard import SummaryWriter

from endofm_monai.networks import unwrap

__all__ = ["HealthHandler", "UnhealthyTrainingError"]

logger = logging.getLogger(__name__)

UNIFORM_ADVICE = (
    "The targets are uniform: look at the teacher's temperature, a larger learning rate, or start from pre-trained "
    "weights (`backbone_weights`)."
)
CONSTANT_ADVICE = (
    "All clips look the same to the teacher: look at the centre's momentum and norm, a smaller learning rate, a higher "
    "teacher momentum, and whether the clips differ at all."
)


class UnhealthyTrainingError(RuntimeError):
    """The training cannot come to a good end; the message says what to look at."""


class HealthHandler:
    """Answers whether the pre-training is healthy: to TensorBoard, in one line an epoch, and by stopping it.

    Each optimizer step logs the loss, its shares ``cross_view`` (L_cv) and ``dynamic_motion`` (L_dm), the teacher's
    entropy in nats, the norm of the centre, the norm of the gradients, the learning rate, the weight decay and the
    teacher's momentum. Each epoch logs their means, and

    * ``collapse``: dimensional collapse of the teacher's class tokens in [0, 1] by effective rank (MONAI's
      ``EmbeddingCollapseMetric``), 1 being a single direction;
    * ``spread``: standard deviation of the L2-normalized class tokens over clips, times the root of their width; 1
      if they fill the sphere, 0 if all clips look the same to the teacher;
    * ``clips_per_second`` of all processes, and ``waiting``: the share of time spent waiting for data.

    The means are also in ``engine.state.metrics``.

    Args:
        log_dir: folder of the TensorBoard log; None writes none.
        collapse_patience: stop after so many epochs in a row that look collapsed (targets uniform and the loss at
            ``ln K``, or targets one-hot and the loss at 0, or no spread); None never stops. A start from random
            weights passes through such a state, and needs some epochs to leave it.
    """

    max_embeddings = 1024  # of an epoch, for ``collapse`` and ``spread``

    def __init__(self, log_dir: str | None = None, collapse_patience: int | None = 20) -> None:
        self.log_dir = log_dir
        self.collapse_patience = collapse_patience
        self._collapsed_epochs = 0
        self._writer: SummaryWriter | None = None
        self._hook: RemovableHandle | None = None
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps = 0
        self._clips = 0
        self._waited = 0.0
        self._embeddings: list[torch.Tensor] = []
        self._epoch_started = self._fetch_started = time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Register the handler with a :class:`StudentTeacherTrainer`."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._fetch)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._fetched)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._collect)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.log_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log_epoch)

    def _start(self, engine: Engine) -> None:
        if self._hook is None:  # a federated client runs its trainer again and again
            self._hook = unwrap(engine.network).teacher.backbone.register_forward_hook(self._remember)
            if self.log_dir is not None and idist.get_rank() == 0:
                self._writer = SummaryWriter(self.log_dir)

    def _remember(self, module: torch.nn.Module, inputs: object, class_tokens: torch.Tensor) -> None:
        self._class_tokens = class_tokens.detach()

    def _collect(self, engine: Engine) -> None:
        clips = engine.state.output[CommonKeys.IMAGE][0].shape[0]
        self._clips += clips
        if sum(map(len, self._embeddings)) < self.max_embeddings:
            self._embeddings.append(self._class_tokens[:clips].float())

    def _fetch(self) -> None:
        self._fetch_started = time.perf_counter()

    def _fetched(self) -> None:
        self._waited += time.perf_counter() - self._fetch_started

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

    def log_step(self, engine: Engine) -> None:
        """Log the numbers of one optimizer step."""
        loss, group = engine.loss_function, engine.optimizer.param_groups[0]
        measured = {
            "loss": loss.total,
            "cross_view": loss.cross_view,
            "dynamic_motion": loss.dynamic_motion,
            "teacher_entropy": loss.teacher_entropy,
            "center_norm": loss.center.norm(),
        }
        if hasattr(engine.state, "gradient_norm"):
            measured["gradient_norm"] = engine.state.gradient_norm
        values = dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))
        values.update(
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            teacher_momentum=unwrap(engine.network).teacher_momentum,
        )
        self._steps += 1
        for name, value in values.items():
            self._sums[name] += value
            if self._writer is not None:
                self._writer.add_scalar(f"step/{name}", value, engine.state.iteration)

    def log_epoch(self, engine: Engine) -> None:
        """Log the means of one epoch, and stop a collapsed training.

        Raises:
            UnhealthyTrainingError: after ``collapse_patience`` collapsed epochs in a row.
        """
        seconds = time.perf_counter() - self._epoch_started
        means = {name: total / max(self._steps, 1) for name, total in self._sums.items()}
        width = unwrap(engine.network).teacher.backbone.embed_dim
        local = torch.cat([torch.empty(0, width, device=engine.state.device), *self._embeddings])
        embeddings = evenly_divisible_all_gather(local)
        if len(embeddings) > 1:
            means["collapse"] = float(
                compute_embedding_collapse(embeddings, include_indicators=["effective_rank"])["aggregate"]
            )
            means["spread"] = float(F.normalize(embeddings, dim=1).std(dim=0).mean() * width**0.5)
        means["clips_per_second"] = self._clips * idist.get_world_size() / seconds
        means["waiting"] = self._waited / seconds
        engine.state.metrics.update(means)
        if idist.get_rank() == 0:
            logger.info(_line(engine.state.epoch, engine.state.max_epochs, means))
        if self._writer is not None:
            for name, value in means.items():
                self._writer.add_scalar(f"epoch/{name}", value, engine.state.epoch)
            self._writer.flush()
        if self._steps:
            self._check_collapse(means, math.log(engine.loss_function.center.numel()))

    def _check_collapse(self, means: dict[str, float], uniform: float) -> None:
        loss, entropy = means["loss"] / uniform, means["teacher_entropy"] / uniform
        is_uniform = loss > 0.999 and entropy > 0.999
        is_constant = (loss < 0.001 and entropy < 0.001) or means.get("spread", 1.0) < 0.001
        self._collapsed_epochs = self._collapsed_epochs + 1 if is_uniform or is_constant else 0
        if self.collapse_patience is not None and self._collapsed_epochs >= self.collapse_patience:
            raise UnhealthyTrainingError(
                f"The representation has collapsed for {self._collapsed_epochs} epochs: loss {means['loss']:.4f}, "
                f"teacher entropy {means['teacher_entropy']:.4f} (uniform: {uniform:.4f}), "
                f"spread {means.get('spread', 0):.3f}. "
                f"{UNIFORM_ADVICE if is_uniform else CONSTANT_ADVICE}"
            )


def _line(epoch: int, epochs: int, means: dict[str, float]) -> str:
    parts = [f"epoch {epoch}/{epochs}"]
    if "loss" in means:
        parts.append(
            "loss {loss:.4f} (cross-view {cross_view:.4f}, dynamic motion {dynamic_motion:.4f}), "
            "teacher entropy {teacher_entropy:.3f}, centre norm {center_norm:.3f}, lr {lr:.2e}".format(**means)
        )
    parts += [f"{name.replace('_', ' ')} {means[name]:.3g}" for name in _OPTIONAL if name in means]
    return " | ".join([*parts, f"waiting for data {means['waiting']:.0%}"])


_OPTIONAL = ("gradient_norm", "collapse", "spread", "clips_per_second")
