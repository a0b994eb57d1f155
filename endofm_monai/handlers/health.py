# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ignite.engine import Engine
from monai.metrics import compute_embedding_collapse
from monai.utils import CommonKeys, evenly_divisible_all_gather

from endofm_monai.handlers.log import TrainingLogHandler, UnhealthyTrainingError
from endofm_monai.networks import unwrap

__all__ = ["ConceptHealthHandler", "EmbeddingLogHandler", "HealthHandler"]

logger = logging.getLogger(__name__)

UNIFORM, CONSTANT = "targets uniform", "all clips look the same to the teacher"
UNLEARNED = "the student learns nothing"
REMEDIES = {
    UNIFORM: "few clips need `small.json`, whose targets are those of Sinkhorn; otherwise look at "
    "`teacher_temperature`, `base_learning_rate`, or start from pre-trained weights (`backbone_weights`)",
    CONSTANT: "look at the centre's momentum and norm, a smaller `base_learning_rate`, a higher `teacher_momentum`, "
    "and whether the clips differ at all",
    UNLEARNED: "views that differ less may help, as those of `small.json` (`views`, `train::augment`), or a smaller "
    "`base_learning_rate`",
}
FIRST_EPOCHS = 3  # in which a start from random weights may look collapsed without a word


class EmbeddingLogHandler(TrainingLogHandler):
    """Adds to the log of each epoch of a pre-training how much room the embeddings of its clips take.

    ``effective_rank`` is the number of directions that the class tokens use (Roy and Vetterli, 2007), and ``spread``
    the standard deviation of the normalized class tokens over clips, times the root of their width: 1 if they fill the
    sphere, 0 if all clips look the same.
    """

    max_embeddings = 1024  # of an epoch

    def _reset(self) -> None:
        super()._reset()
        self._embeddings: list[torch.Tensor] = []

    def _count(self, engine: Engine) -> None:
        super()._count(engine)
        if sum(map(len, self._embeddings)) < self.max_embeddings:
            self._embeddings.append(self._class_tokens(engine).detach().float())

    @abstractmethod
    def _class_tokens(self, engine: Engine) -> torch.Tensor:
        """Class tokens ``(B, D)`` of one view of each clip of the present batch."""

    def _epoch_values(self, engine: Engine) -> dict[str, float]:
        values = super()._epoch_values(engine)
        width = unwrap(engine.network).backbone.embed_dim
        local = torch.cat([torch.empty(0, width, device=engine.state.device), *self._embeddings])
        embeddings = evenly_divisible_all_gather(local)
        if len(embeddings) > 1:
            collapse = compute_embedding_collapse(embeddings, include_indicators=["effective_rank"])["aggregate"]
            values["effective_rank"] = (1 - float(collapse)) * min(len(embeddings) - 1, width)
            values["spread"] = float(F.normalize(embeddings, dim=1).std(dim=0).mean() * width**0.5)
        return values


@dataclass(eq=False)
class HealthHandler(EmbeddingLogHandler):
    """Answers whether the pre-training is healthy: to TensorBoard, in one line an epoch, and by stopping it.

    Adds to what an :class:`EmbeddingLogHandler` logs of the teacher's class tokens, of each step: the loss's shares
    ``cross_view`` (L_cv) and ``dynamic_motion`` (L_dm), KoLeo where it is used, the teacher's entropy in nats, the norm
    of the centre, weight decay and the teacher's momentum. An epoch looks collapsed when targets are uniform and the
    loss is at ``ln K``, or targets are one-hot and the loss is at 0, or there is no spread; where the loss alone is at
    ``ln K`` nothing is learned. All but the first such epochs say so.
    """

    collapse_patience: int | None = 20  # stop after so many epochs in a row that look collapsed; None never stops

    _in_a_row: dict[str, int] = field(default_factory=dict, init=False)  # epochs that show each sign

    def state_dict(self) -> dict[str, Any]:
        """That of a :class:`TrainingLogHandler`, and for how many epochs each sign has been seen."""
        return {**super().state_dict(), "in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums and signs of a checkpoint."""
        super().load_state_dict(state)
        self._in_a_row = state["in_a_row"]

    def _class_tokens(self, engine: Engine) -> torch.Tensor:
        return unwrap(engine.network).teacher_tokens[-1]  # of the last global view

    def _loss_values(self, engine: Engine) -> dict[str, torch.Tensor]:
        loss = engine.loss_function
        return {
            **super()._loss_values(engine),
            "cross_view": loss.cross_view,
            "dynamic_motion": loss.dynamic_motion,
            "teacher_entropy": loss.teacher_entropy,
            **({"koleo": loss.koleo} if loss.koleo_weight else {}),
        }

    def _step_values(self, engine: Engine) -> dict[str, Any]:
        return {
            **super()._step_values(engine),
            "center_norm": engine.loss_function.center.norm(),
            "weight_decay": engine.optimizer.param_groups[0]["weight_decay"],
            "teacher_momentum": unwrap(engine.network).teacher_momentum,
        }

    def _log_epoch(self, engine: Engine) -> dict[str, float]:
        means = super()._log_epoch(engine)
        if CommonKeys.LOSS in means:
            self._judge(engine, means)
        return means

    def _judge(self, engine: Engine, means: Mapping[str, float]) -> None:
        uniform = math.log(engine.loss_function.center.numel())
        loss, entropy, spread = means["loss"] / uniform, means["teacher_entropy"] / uniform, means.get("spread", 1.0)
        signs = {
            UNIFORM: loss > 0.999 and entropy > 0.999,
            CONSTANT: (loss < 0.001 and entropy < 0.001) or spread < 0.001,
            UNLEARNED: loss > 0.995,
        }
        self._in_a_row = {sign: self._in_a_row.get(sign, 0) + 1 for sign, shown in signs.items() if shown}
        epoch, patience = engine.state.epoch, self.collapse_patience
        enough = min(FIRST_EPOCHS, patience or FIRST_EPOCHS)
        lasting = [sign for sign, epochs in self._in_a_row.items() if epochs >= enough]
        if not lasting:
            return
        sign = lasting[0]
        epochs = self._in_a_row[sign]
        message = (
            f"epoch {epoch} | {sign} since epoch {epoch - epochs + 1}: loss {means['loss']:.4f}, "
            f"teacher entropy {means['teacher_entropy']:.4f} (uniform: {uniform:.4f}), spread {spread:.3f}; "
            f"{REMEDIES[sign]}."
        )
        if patience is not None and sign != UNLEARNED and epochs >= patience:
            self._in_a_row = {}  # a training that goes on from here, with other settings, is to have its time
            raise UnhealthyTrainingError(f"The representation has collapsed. {message}")
        if idist.get_rank() == 0:
            logger.warning(message)


class ConceptHealthHandler(EmbeddingLogHandler):
    """Answers whether the pre-training of a :class:`endofm_monai.networks.nets.ConceptNetwork` is healthy.

    Adds to what an :class:`EmbeddingLogHandler` logs, of each step, the ``values`` of a
    :class:`endofm_monai.losses.ConceptLoss`: its terms, the concepts' entropy (uniform: ``ln K``), how many are used.
    """

    def _class_tokens(self, engine: Engine) -> torch.Tensor:
        return engine.state.output[CommonKeys.PRED].class_tokens[:, 0]  # of the first clip of each video

    def _loss_values(self, engine: Engine) -> dict[str, torch.Tensor]:
        return engine.loss_function.values
