# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import logging
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from endofm_monai.handlers.training_checkpoint import write_checkpoint
from endofm_monai.networks import unwrap

__all__ = ["BestModelHandler"]

logger = logging.getLogger(__name__)


class BestModelHandler:
    """Writes ``<ckpt_dir>/model.pt``, the network alone, whenever an evaluator's key metric is the best so far.

    The file is written atomically and loads with ``weights_only=True``. If saving fails (a full disk), the former file
    stays as it is and a warning is logged.

    Args:
        network: the network, perhaps in ``DistributedDataParallel``.
        ckpt_dir: folder for the file.
    """

    def __init__(self, network: nn.Module, ckpt_dir: str) -> None:
        self.network = network
        self.path = Path(ckpt_dir) / "model.pt"

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator that has a key metric."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the network if this evaluation was the best."""
        state = engine.state
        if state.best_metric_epoch != state.epoch:
            return
        if idist.get_rank() == 0:
            logger.info(f"epoch {state.epoch}: {state.key_metric_name} {state.best_metric:.4f} is the best so far")
        try:
            write_checkpoint(self.path, unwrap(self.network).state_dict())
        except OSError as error:
            logger.warning(f"{error}. The former model is kept; training goes on.")
