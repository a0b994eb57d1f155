# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.metrics import compute_embedding_collapse
from monai.utils import CommonKeys, evenly_divisible_all_gather
from torch.utils.hooks import RemovableHandle

from endofm_monai.handlers.training_log import TrainingLogHandler, UnhealthyTrainingError
from endofm_monai.networks import unwrap

__all__ = ["HealthHandler"]

UNIFORM_ADVICE = (
    "The targets are uniform: look at the teacher's temperature, a larger learning rate, or start from pre-trained "
    "weights (`backbone_weights`)."
)
CONSTANT_ADVICE = (
    "All clips look the same to the teacher: look at the centre's momentum and norm, a smaller learning rate, a higher "
    "teacher momentum, and whether the clips differ at all."
)


class HealthHandler(TrainingLogHandler):
    """Answers whether the pre-training is healthy: to TensorBoard, in one line an epoch, and by stopping it.

    Adds to what a :class:`TrainingLogHandler` logs of each optimizer step: the loss's shares ``cross_view`` (L_cv) and
    ``dynamic_motion`` (L_dm), the teacher's entropy in nats, the norm of the centre, the weight decay and the teacher's
    momentum; and of each epoch:

    * ``collapse``: dimensional collapse of the teacher's class tokens in [0, 1] by effective rank (MONAI's
      ``EmbeddingCollapseMetric``), 1 being a single direction;
    * ``spread``: standard deviation of the L2-normalized class tokens over clips, times the root of their width; 1
      if they fill the sphere, 0 if all clips look the same to the teacher.

    Args:
        log_dir: folder of the TensorBoard log; None writes none.
        collapse_patience: stop after so many epochs in a row that look collapsed (targets uniform and the loss at
            ``ln K``, or targets one-hot and the loss at 0, or no spread); None never stops. A start from random
            weights passes through such a state, and needs some epochs to leave it.
    """

    max_embeddings = 1024  # of an epoch, for ``collapse`` and ``spread``

    def __init__(self, log_dir: str | None = None, collapse_patience: int | None = 20) -> None:
        super().__init__(log_dir)
        self.collapse_patience = collapse_patience
        self._collapsed_epochs = 0
        self._hook: RemovableHandle | None = None

    def _reset(self) -> None:
        super()._reset()
        self._embeddings: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler with a :class:`StudentTeacherTrainer`."""
        super().attach(engine)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_collapse)

    def _start(self, engine: Engine) -> None:
        super()._start(engine)
        if self._hook is None:
            self._hook = unwrap(engine.network).teacher.backbone.register_forward_hook(self._remember)

    def _remember(self, module: torch.nn.Module, inputs: object, class_tokens: torch.Tensor) -> None:
        self._class_tokens = class_tokens.detach()

    def _collect(self, engine: Engine) -> None:
        if sum(map(len, self._embeddings)) < self.max_embeddings:
            clips = engine.state.output[CommonKeys.IMAGE][0].shape[0]
            self._embeddings.append(self._class_tokens[:clips].float())

    def step_values(self, engine: Engine) -> dict[str, torch.Tensor | float]:
        """What is logged of an optimizer step, by name."""
        loss = engine.loss_function
        return {
            "loss": loss.total,
            "cross_view": loss.cross_view,
            "dynamic_motion": loss.dynamic_motion,
            "teacher_entropy": loss.teacher_entropy,
            "center_norm": loss.center.norm(),
            **super().step_values(engine),
            "weight_decay": engine.optimizer.param_groups[0]["weight_decay"],
            "teacher_momentum": unwrap(engine.network).teacher_momentum,
        }

    def epoch_values(self, engine: Engine) -> dict[str, float]:
        """Means of the steps of an epoch, collapse and spread of the embeddings, and the pace, by name."""
        values = super().epoch_values(engine)
        width = unwrap(engine.network).teacher.backbone.embed_dim
        local = torch.cat([torch.empty(0, width, device=engine.state.device), *self._embeddings])
        embeddings = evenly_divisible_all_gather(local)
        if len(embeddings) > 1:
            values["collapse"] = float(
                compute_embedding_collapse(embeddings, include_indicators=["effective_rank"])["aggregate"]
            )
            values["spread"] = float(F.normalize(embeddings, dim=1).std(dim=0).mean() * width**0.5)
        return values

    def check_collapse(self, engine: Engine) -> None:
        """Stop a collapsed training.

        Raises:
            UnhealthyTrainingError: after ``collapse_patience`` collapsed epochs in a row.
        """
        if not self._steps:
            return
        means, uniform = engine.state.metrics, math.log(engine.loss_function.center.numel())
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
