# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from endofm_monai.handlers.log import EmbeddingLogHandler
from endofm_monai.losses import ConceptLoss
from endofm_monai.networks import unwrap


class ConceptPhaseHandler:
    """What begins later in a training of a :class:`endofm_monai.networks.nets.ConceptNetwork`.

    From the second epoch on scores are balanced with the queue, which the first one filled. The local concepts are
    learned after some epochs; up to then what gathers them gets no gradient, of which Adam would make large steps.

    Args:
        loss: the loss of the training.
        epochs_without_local_loss: number of first epochs without the local concepts.
    """

    def __init__(self, loss: ConceptLoss, epochs_without_local_loss: int = 10) -> None:
        self.loss = loss
        self.epochs_without_local_loss = epochs_without_local_loss

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer, ahead of a :class:`GradientHandler`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._discard_gradients)

    def _start_epoch(self, engine: Engine) -> None:
        self.loss.uses_queue = engine.state.epoch > 1
        self.loss.local_weight = float(engine.state.epoch > self.epochs_without_local_loss)

    def _discard_gradients(self, engine: Engine) -> None:
        if self.loss.local_weight == 0:
            unwrap(engine.network).integration.zero_grad()


class ConceptHealthHandler(EmbeddingLogHandler):
    """Answers whether the pre-training of a :class:`endofm_monai.networks.nets.ConceptNetwork` is healthy.

    Adds to what an :class:`EmbeddingLogHandler` logs of the first clips' class tokens, of each step: the terms of the
    loss, the entropy of the concepts (uniform: ``ln K``), and how many of them are used; see
    :class:`endofm_monai.losses.ConceptLoss`.
    """

    def class_tokens(self, engine: Engine) -> torch.Tensor:
        """Class tokens ``(B, D)`` of the first clip of each video."""
        return engine.state.output[CommonKeys.PRED].class_tokens[:, 0]

    def step_values(self, engine: Engine) -> dict[str, Any]:
        """What is logged of an optimizer step, by name."""
        return {**super().step_values(engine), **engine.loss_function.values}
