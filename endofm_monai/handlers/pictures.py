# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.networks import eval_mode
from monai.utils import CommonKeys

from endofm_monai.engines import VideoEvents
from endofm_monai.handlers.frames import true_mask
from endofm_monai.handlers.log import Board
from endofm_monai.networks import unwrap
from endofm_monai.utils import PathLike
from endofm_monai.visualize import plot_attention, plot_masks, plot_views
from endofm_monai.visualize.figure import pick_frames

__all__ = ["AttentionPictureHandler", "MaskPictureHandler", "ViewsPictureHandler"]


@dataclass(eq=False)
class TrainingPictureHandler(ABC):
    """Draws the first clip of a :class:`PretrainingTrainer`'s batch, ``<output_dir>/<name>/*.png``, at intervals.

    It is also in a TensorBoard log there, of its own, as TensorBoard follows only the newest log of a folder.
    """

    output_dir: PathLike
    interval: int = 1000  # iterations between two pictures; the first one has one too

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"`interval` must be at least 1 iteration, but got {self.interval}.")
        self.folder = Path(self.output_dir) / self.name
        self._board = Board(self.folder)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            is_due = Events.ITERATION_COMPLETED(event_filter=lambda _, n: n == 1 or n % self.interval == 0)
            engine.add_event_handler(is_due, self._draw)

    def _draw(self, engine: Engine) -> None:
        views = [view[:1] for view in engine.state.output[CommonKeys.IMAGE]]
        if len(views[0]) > 0:  # there is a clip that could be read
            path = self.folder / f"{engine.state.iteration:07d}.png"
            self.draw(unwrap(engine.network), views, path)
            self._board.write({self.name: path}, engine.state.iteration)

    @classmethod
    def latest(cls, output_dir: PathLike, iteration: int) -> list[Path]:
        """The last picture up to an iteration, if there is one; later ones are of a former training."""
        paths = sorted((Path(output_dir) / cls.name).glob("*.png"))
        return [path for path in paths if path.stem <= f"{iteration:07d}"][-1:]

    @abstractmethod
    def draw(self, network: Any, views: list[torch.Tensor], path: Path) -> None:
        """Draw the views ``(1, 3, T, S, S)`` of one clip."""


class ViewsPictureHandler(TrainingPictureHandler):
    """Draws the views that the network sees; see :class:`TrainingPictureHandler`."""

    name = "views"

    def draw(self, network: Any, views: list[torch.Tensor], path: Path) -> None:
        plot_views([view[0] for view in views], path, network.num_global_views)


class AttentionPictureHandler(TrainingPictureHandler):
    """Draws where the backbone (the teacher's) looks in the first view; see :class:`TrainingPictureHandler`."""

    name = "attention"

    def draw(self, network: Any, views: list[torch.Tensor], path: Path) -> None:
        backbone = network.backbone
        with torch.compiler.set_stance("force_eager"), eval_mode(backbone):
            attention = backbone.attention_maps(views[0])
        plot_attention(views[0][0], attention[0], path)


@dataclass(eq=False)
class MaskPictureHandler:
    """Draws frames of one video with truth, prediction and difference at each evaluation.

    The pictures are ``<output_dir>/masks/<epoch>.png``, and in a TensorBoard log there.
    """

    output_dir: PathLike
    video: int = 1  # number, from 1, of the one that is drawn

    def __post_init__(self) -> None:
        self.folder = Path(self.output_dir) / "masks"
        self._board = Board(self.folder)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(VideoEvents.VIDEO_STARTED, self._begin)
            engine.add_event_handler(VideoEvents.PIECE_COMPLETED, self._keep)
            engine.add_event_handler(VideoEvents.VIDEO_COMPLETED, self._draw)

    def _begin(self, engine: Engine) -> None:
        self._shown: list[tuple[torch.Tensor, ...]] = []

    def _keep(self, engine: Engine) -> None:
        state = engine.state
        is_due = (state.iteration - 1) % state.epoch_length + 1 == self.video
        if is_due and state.piece in pick_frames(state.info.frames):
            prediction, truth = state.answer["probability"][0] > 0.5, torch.from_numpy(true_mask(state))
            self._shown.append((state.frame, prediction, truth))

    def _draw(self, engine: Engine) -> None:
        if self._shown:
            frames, predictions, truths = (torch.stack(part) for part in zip(*self._shown, strict=True))
            path, numbers = self.folder / f"{engine.state.epoch:04d}.png", pick_frames(engine.state.info.frames)
            plot_masks(frames.transpose(0, 1), predictions, truths, path, numbers)
            self._board.write({"masks": path}, engine.state.epoch)
