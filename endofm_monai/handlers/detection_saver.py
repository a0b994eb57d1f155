# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from endofm_monai.handlers.box_writers import BOX_WRITERS, VideoDetections

__all__ = ["DetectionSaver"]

logger = logging.getLogger(__name__)


class DetectionSaver:
    """Writes the detections of each video, as soon as the video is done.

    A video gets a folder ``<output_dir>/<name>``, by the ``name`` of its item, with the ``formats``: ``"coco"``
    (``detections.json``), ``"csv"`` (``detections.csv``), ``"cvat"`` (``annotations.xml``), ``"overlay"``
    (``overlay.mp4``); see :mod:`endofm_monai.handlers.box_writers`. Videos without any detection get them too.

    Args:
        output_dir: the folder to write to.
        class_names: names of the classes, from 1 on.
        formats: what to write.
        threshold: smallest score of a detection in ``"cvat"`` and ``"overlay"``.

    Raises:
        ValueError: when a format is unknown.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        class_names: Sequence[str] = ("polyp",),
        formats: Sequence[str] = ("coco", "csv", "cvat", "overlay"),
        threshold: float = 0.5,
    ) -> None:
        if unknown := set(formats) - set(BOX_WRITERS):
            raise ValueError(f"`formats` must be some of {', '.join(BOX_WRITERS)}, but got {', '.join(unknown)}.")
        self.output_dir = Path(output_dir)
        self.class_names = class_names
        self.formats = formats
        self.threshold = threshold

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator of :class:`endofm_monai.engines.PrepareVideos`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the videos of one batch."""
        output = engine.state.output
        if not output:  # the videos could not be read
            return
        parts = (output[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED))
        for source, item, frames in zip(*parts, strict=True):
            folder = self.output_dir / item["name"]
            video = VideoDetections(folder, item["name"], source, frames, self.class_names, self.threshold)
            for name in self.formats:
                BOX_WRITERS[name](video)
            count = sum(len(frame["box"]) for frame in video.likely())
            logger.info(f"{item['name']}: {count} detections in {len(frames)} frames, written to {folder}.")
