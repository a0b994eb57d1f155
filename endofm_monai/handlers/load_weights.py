# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

from ignite.engine import Engine, Events
from torch import nn

from endofm_monai.weights import load_published

__all__ = ["LoadWeightsHandler", "WeightsCheckpointLoader"]


class LoadWeightsHandler:
    """Loads weights of any layout when an engine starts; see :func:`endofm_monai.weights.load_published`.

    Args:
        network: the network to fill.
        weights: the file.
        which: ``"teacher"`` or ``"student"`` of a training checkpoint.
    """

    def __init__(self, network: nn.Module, weights: str | os.PathLike, which: str = "teacher") -> None:
        self.network = network
        self.weights = weights
        self.which = which

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator; loading raises what ``load_published`` raises."""
        engine.add_event_handler(Events.STARTED, lambda: load_published(self.network, self.weights, which=self.which))


class WeightsCheckpointLoader(LoadWeightsHandler):
    """The handler of evaluations, which MONAI's federated client switches off by its name.

    The client (``monai.fl.client.MonaiAlgo``) puts the global weights into the network and disables handlers whose
    target contains ``CheckpointLoader``; any other would put the local file in their place.
    """
