# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from torch import nn
from torch.optim.swa_utils import AveragedModel

from endofm_monai.networks import unwrap

__all__ = ["WeightAverageHandler"]

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class WeightAverageHandler:
    """Validates, and so keeps as ``model.pt``, a moving average of the weights instead of the last ones.

    The training itself goes on with its own weights. After optimizer step n the average moves towards them by
    ``1 - min(decay, n / (9 + n))``, so that the first steps are soon forgotten; buffers are those of the last step. It
    is part of the :class:`ClipTrainer`'s checkpoint. An evaluation by the validator outside of the training, as of a
    server's weights by a federated client, is of the weights that the network has.

    Args:
        network: the network, perhaps in ``DistributedDataParallel``.
        validator: its evaluator during the training.
        decay: share of the former average that stays, from 0 (none) to below 1.

    Raises:
        ValueError: when ``decay`` is not in that range.
    """

    def __init__(self, network: nn.Module, validator: Evaluator, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be from 0 to below 1, but got {decay}.")
        self.network = unwrap(network)
        self.validator = validator
        self.decay = decay
        self._training = False
        self._weights_of_training: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer; the validator already has its own handlers."""
        self.average = AveragedModel(self.network, multi_avg_fn=self._move)
        engine.further_checkpoint_parts["average"] = self.average
        engine.add_event_handler(Events.STARTED, self._note_training, True)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._note_training, False)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: self.average.update_parameters(self.network))
        self.validator.add_event_handler(Events.STARTED, self.use_average)
        self.validator.add_event_handler(Events.COMPLETED, self.use_weights_of_training)

    def _move(self, average: Tensors, weights: Tensors, steps: torch.Tensor | int) -> None:
        """Move the average on by one step; torch takes over the first step's weights itself."""
        count = int(steps) + 1
        torch._foreach_lerp_(average, weights, 1 - min(self.decay, count / (9 + count)))

    def _note_training(self, engine: Engine, training: bool) -> None:
        self._training = training

    def use_average(self) -> None:
        """Put the average into the network, if this is a validation of the training."""
        if not self._training:
            return
        self._weights_of_training = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.module.state_dict())

    def use_weights_of_training(self) -> None:
        """Put the weights of the training back into the network."""
        if self._weights_of_training:
            self.network.load_state_dict(self._weights_of_training)
        self._weights_of_training = {}
