# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice
from monai.utils import CommonKeys

__all__ = ["MeanFrameDice"]


class MeanFrameDice:
    """Key metric of a MONAI evaluator: mean Dice of the frames of all clips, in however many processes.

    A frame in which neither truth nor prediction has a polyp counts as 1. A clip that several processes have seen
    counts once, which MONAI's ``DiceMetric`` could not tell.

    The evaluator must decollate and give ``pred`` and ``label``, masks ``(1, T, H, W)``; the batches' items have the
    ``index`` of :class:`endofm_monai.data.ClipDataset`.
    """

    def __init__(self) -> None:
        self._dice: dict[int, torch.Tensor] = {}  # of the frames of each clip

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._dice.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compute, name)

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            frames = (output[key].transpose(0, 1) for key in (CommonKeys.PRED, CommonKeys.LABEL))
            self._dice[int(item["index"])] = compute_dice(*frames, ignore_empty=False).double().flatten().cpu()

    def _compute(self, engine: Engine, name: str) -> None:
        """Set the metric; all processes must call it."""
        tables = idist.all_gather(self._dice) if idist.get_world_size() > 1 else [self._dice]
        clips = {index: dice for table in tables for index, dice in table.items()}
        if not clips:
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        engine.state.metrics[name] = torch.cat([clips[index] for index in sorted(clips)]).mean().item()
