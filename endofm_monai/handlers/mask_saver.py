# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.utils import CommonKeys, ensure_tuple

from endofm_monai.data import clip_names
from endofm_monai.handlers.mask_writers import MASK_WRITERS, MaskOutput, WriteMask

__all__ = ["MaskSaver"]

logger = logging.getLogger(__name__)


class MaskSaver:
    """Writes the masks of clips, which an evaluator goes through in chunks, frame by frame as they come.

    Each clip gets a folder ``<output_dir>/<name of the clip>`` with the ``formats``: ``"png"`` (``masks/*.png``),
    ``"nifti"`` (``masks.nii.gz``), ``"coco"`` (``masks.json``), ``"overlay"`` (``overlay.mp4``); see
    :mod:`endofm_monai.handlers.mask_writers`. A clip of which a chunk could not be read gets only the PNG files of the
    frames before it, and an error is logged.

    The evaluator must give ``pred`` (masks ``(1, T, H, W)``), ``frames`` (uint8 RGB ``(3, T, H, W)`` of the
    same size) and the ``index`` of :class:`endofm_monai.data.ClipDataset`, whose data must be those of
    :func:`endofm_monai.data.chunk_clips`, in order.

    Args:
        output_dir: the folder to write to.
        formats: what to write.
        dataset_dir: folder that clips are named from.

    Raises:
        ValueError: when a format is unknown.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        formats: Sequence[str] = ("png", "nifti", "coco", "overlay"),
        dataset_dir: str | os.PathLike = ".",
    ) -> None:
        if unknown := set(formats) - set(MASK_WRITERS):
            raise ValueError(f"`formats` must be some of {', '.join(MASK_WRITERS)}, but got {', '.join(unknown)}.")
        self.output_dir = Path(output_dir)
        self.formats = formats
        self.dataset_dir = dataset_dir
        self._stack = ExitStack()
        self._writers: list[WriteMask] = []
        self._source: Any = None
        self._written = 0

    def attach(self, engine: Engine) -> None:
        """Register the handler with a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.stop)

    def start(self, engine: Engine) -> None:
        """Name the clips."""
        data = engine.data_loader.dataset.data
        first_chunks = [item["core"][0] == 0 for item in data]
        names = clip_names([item["source"] for item in compress(data, first_chunks)], self.dataset_dir)
        self._names = [names[number - 1] for number in accumulate(first_chunks)]

    def save(self, engine: Engine) -> None:
        """Write the cores of the chunks of one batch."""
        for chunk, output in zip(engine.state.batch, engine.state.output, strict=True):
            item = engine.data_loader.dataset.data[int(chunk["index"])]
            first, last, start, stop = item["core"]
            frames = chunk["frames"][:, start:stop].permute(1, 2, 3, 0).cpu().numpy()
            masks = output[CommonKeys.PRED][0, start:stop].cpu().numpy() > 0
            if first == 0:
                self.finish()
                self._open(self._names[int(chunk["index"])], item, *masks.shape[1:])
            if item["source"] != self._source or first != self._written:
                continue  # a chunk before this one is missing; `finish` says so
            for frame, mask in zip(frames, masks, strict=True):
                for write in self._writers:
                    write(frame, mask)
            self._written = last
            if last == item["num_frames"]:
                self._close()

    def _open(self, name: str, item: dict[str, Any], height: int, width: int) -> None:
        source, frames = item["source"], item["num_frames"]
        names = [Path(path).stem for path in ensure_tuple(source)]
        if len(set(names)) != frames:  # no image files with a name each
            digits = max(5, len(str(frames - 1)))
            names = [f"{index:0{digits}d}" for index in range(frames)]
        clip = MaskOutput(self.output_dir / name, names, item["fps"], height, width)
        self._source, self._name, self._written = source, name, 0
        self._writers = [self._stack.enter_context(MASK_WRITERS[format](clip)) for format in self.formats]

    def _close(self) -> None:
        self._stack.close()
        logger.info(f"Wrote the masks of {self._written} frames of {self._name}.")
        self._source = None

    def finish(self) -> None:
        """Give up the clip that is under way, if there is one."""
        if self._source is not None:
            logger.error(
                f"{self._name}: only the first {self._written} frames could be read; there are masks of no more."
            )
            self._give_up(RuntimeError(self._name))

    def stop(self, engine: Engine, error: BaseException) -> None:
        """Leave nothing half written, and raise the error again."""
        if self._source is not None:
            self._give_up(error)
        raise error

    def _give_up(self, error: BaseException) -> None:
        """Leave the writers with an error, so that they write no file that is not complete."""
        self._source = None
        try:
            self._stack.__exit__(type(error), error, None)
        except BaseException as raised:
            if raised is not error:
                raise
