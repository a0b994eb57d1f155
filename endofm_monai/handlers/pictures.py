# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread
from monai.networks import eval_mode
from monai.utils import CommonKeys
from torch.nn.functional import interpolate
from torch.utils.tensorboard import SummaryWriter

from endofm_monai.networks import unwrap
from endofm_monai.visualize import plot_attention, plot_masks, plot_views

__all__ = ["AttentionPictureHandler", "MaskPictureHandler", "ViewsPictureHandler"]


class PictureHandler(ABC):
    """Draws a picture of the first clip of a batch after the first iteration and then at intervals.

    It is written to ``<output_dir>/<name>/<iteration>.png`` and to a TensorBoard log in the same folder, by the first
    process. The training does not change.

    Args:
        output_dir: the folder to write to.
        interval: iterations between two pictures.

    Raises:
        ValueError: when ``interval`` is not positive.
    """

    name: str

    def __init__(self, output_dir: str | os.PathLike, interval: int = 1000) -> None:
        if interval < 1:
            raise ValueError(f"`interval` must be at least 1 iteration, but got {interval}.")
        # a folder, and so a TensorBoard run, of its own: TensorBoard follows only the newest log of a folder
        self.folder = Path(output_dir) / self.name
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register the handler with a :class:`StudentTeacherTrainer`."""
        if idist.get_rank() == 0:
            self._writer = SummaryWriter(str(self.folder))
            engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=self._is_due), self)

    def _is_due(self, engine: Engine, iteration: int) -> bool:
        return iteration == 1 or iteration % self.interval == 0

    def __call__(self, engine: Engine) -> None:
        """Draw the picture, if the batch holds a clip that could be read."""
        views = [view[:1] for view in engine.state.output[CommonKeys.IMAGE]]
        if len(views[0]) > 0:
            path = self.folder / f"{engine.state.iteration:07d}.png"
            self.draw(engine, views, path)
            self._writer.add_image(self.name, imread(path)[..., :3], engine.state.iteration, dataformats="HWC")
            self._writer.flush()

    @abstractmethod
    def draw(self, engine: Engine, views: list[torch.Tensor], path: Path) -> None:
        """Draw the views ``(1, 3, T, S, S)`` of one clip to ``path``."""


class ViewsPictureHandler(PictureHandler):
    """Draws the views that student and teacher see of a clip; see :class:`PictureHandler`, whose arguments it takes.

    The subfolder of ``output_dir`` is ``views``.
    """

    name = "views"

    def draw(self, engine: Engine, views: list[torch.Tensor], path: Path) -> None:
        """Draw all views; see :func:`endofm_monai.visualize.plot_views`."""
        network: Any = unwrap(engine.network)
        plot_views([view[0] for view in views], path, network.num_global_views)


class AttentionPictureHandler(PictureHandler):
    """Draws where the teacher looks in the first global view; see :class:`PictureHandler`, whose arguments it takes.

    The subfolder of ``output_dir`` is ``attention``.
    """

    name = "attention"

    def draw(self, engine: Engine, views: list[torch.Tensor], path: Path) -> None:
        """Draw the attention of the last block; see :func:`endofm_monai.visualize.plot_attention`."""
        network: Any = unwrap(engine.network)
        backbone = network.teacher.backbone
        with torch.compiler.set_stance("force_eager"), eval_mode(backbone):
            attention = backbone.attention_maps(views[0])
        plot_attention(views[0][0], attention[0], path)


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
