# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from matplotlib.image import imread
from monai.utils import CommonKeys
from torch.nn.functional import interpolate
from torch.utils.tensorboard import SummaryWriter

from endofm_monai.visualize import plot_masks

__all__ = ["MaskPictureHandler"]


class MaskPictureHandler:
    """Draws image, truth, prediction and difference of frames of one clip at each evaluation.

    It is written to ``<output_dir>/masks/<epoch>.png`` and to a TensorBoard log in the same folder, by the first
    process. See :func:`endofm_monai.visualize.plot_masks`.

    Args:
        output_dir: the folder to write to.
        batch: number of the batch, from 1, whose first clip is drawn.
    """

    def __init__(self, output_dir: str | os.PathLike, batch: int = 1) -> None:
        self.folder = Path(output_dir) / "masks"
        self.batch = batch

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator."""
        if idist.get_rank() == 0:
            self._writer = SummaryWriter(str(self.folder))
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the picture, if it is the turn of this batch and the clip could be read."""
        state = engine.state
        if (state.iteration - 1) % state.epoch_length + 1 != self.batch or not state.output:
            return
        item = state.output[0]
        size = item[CommonKeys.IMAGE].shape[-2:]
        prediction, truth = (
            interpolate(item[key].float().transpose(0, 1), size, mode="nearest-exact")[:, 0]
            for key in (CommonKeys.PRED, CommonKeys.LABEL)
        )
        path = self.folder / f"{state.epoch:04d}.png"
        plot_masks(item[CommonKeys.IMAGE], prediction, truth, path)
        self._writer.add_image("masks", imread(path)[..., :3], state.epoch, dataformats="HWC")
        self._writer.flush()
