# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from monai.data import decollate_batch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from torch.utils.data import DataLoader

from endofm_monai.data import split_clips
from endofm_monai.networks import unwrap

__all__ = ["ClipEvaluator"]


class ClipEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for batches of :func:`endofm_monai.data.collate_clips`.

    A batch without a readable clip has no output and is gone on from; what broken clips mean is up to a
    :class:`endofm_monai.handlers.BrokenClipsHandler`. ``amp`` works on every device, with the ``dtype`` of
    ``amp_kwargs``, bfloat16 by default.

    With several processes each evaluates its own clips. It runs the network without its ``DistributedDataParallel``,
    whose forward would wait for processes that have fewer clips, or clips of fewer windows.

    Args:
        device: where to run.
        val_data_loader: loader of the batches.
        network: the network, perhaps in ``DistributedDataParallel``.
        kwargs: further arguments of ``monai.engines.SupervisedEvaluator``: ``inferer``, ``postprocessing``,
            ``key_val_metric``, ``val_handlers``, ``amp``, ...
    """

    def __init__(
        self, device: torch.device, val_data_loader: Iterable[Any] | DataLoader, network: nn.Module, **kwargs: Any
    ) -> None:
        super().__init__(device, val_data_loader, unwrap(network), **kwargs)

    def _register_decollate(self) -> None:
        """Split batches into items; see :func:`endofm_monai.data.split_clips`."""

        @self.on(IterationEvents.MODEL_COMPLETED)
        def decollate(engine: ClipEvaluator) -> None:
            engine.state.batch = split_clips(engine.state.batch)
            engine.state.output = decollate_batch(engine.state.output)

    def _iteration(self, engine: ClipEvaluator, batchdata: dict[str, Any]) -> Any:
        """Evaluate the readable clips of one batch; see the class."""
        engine.state.batch = batchdata = {key: value for key, value in batchdata.items() if key != "broken"}
        if len(batchdata[CommonKeys.IMAGE]) == 0:
            engine.state.batch = []
            return []
        amp, engine.amp = engine.amp, False  # MONAI's own is for CUDA only
        try:
            with torch.autocast(
                engine.state.device.type, enabled=amp, **{"dtype": torch.bfloat16, **engine.amp_kwargs}
            ):
                return super()._iteration(engine, batchdata)
        finally:
            engine.amp = amp
