# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.data.box_utils import clip_boxes_to_image
from monai.utils import CommonKeys

from endofm_monai.data import open_clip
from endofm_monai.formats.writers import BOX_WRITERS, VideoOutput
from endofm_monai.metrics import DetectionMetric
from endofm_monai.utils import atomic_path

__all__ = ["DetectionEvaluation", "DetectionSaver", "videos_from_engine"]

logger = logging.getLogger(__name__)


def videos_from_engine(output: dict[str, Any]) -> tuple[list, list]:
    """Detections and items of the videos in an evaluator's output, for ``IgniteMetricHandler``; none if it is empty.

    Of true boxes there is only what lies in the frame, as of detected ones.
    """
    if not output:
        return [], []
    items = zip(output[CommonKeys.IMAGE], output[CommonKeys.LABEL], strict=True)
    return output[CommonKeys.PRED], [_within_frames(source, item) for source, item in items]


def _within_frames(source: Any, item: dict[str, Any]) -> dict[str, Any]:
    with open_clip(source) as reader:
        size = (reader.probe().width, reader.probe().height)
    frames = [
        (np.asarray(box, np.float32).reshape(-1, 4), np.asarray(label, np.int64))
        for box, label in zip(item["box"], item["box_label"], strict=True)
    ]
    clipped = [(*clip_boxes_to_image(box, size), label) for box, label in frames]
    return {
        **item,
        "box": [box for box, _, _ in clipped],
        "box_label": [label[kept] for _, kept, label in clipped],
    }


class DetectionEvaluation:
    """Writes all that a metric says of an evaluator's detections to ``<output_dir>/detection.json``.

    ``skipped`` in it are the names of videos that could not be read.

    Args:
        metric: the metric of the evaluator, see :meth:`endofm_monai.metrics.DetectionMetric.report`.
        output_dir: the folder to write to.
        resamples: number of bootstrap resamples of whole videos.
    """

    def __init__(self, metric: DetectionMetric, output_dir: str | os.PathLike, resamples: int = 1000) -> None:
        self.metric = metric
        self.path = Path(output_dir) / "detection.json"
        self.resamples = resamples

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator that has ``metric``."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write and log the results."""
        if idist.get_rank() > 0:
            return
        report = self.metric.report(self.resamples)
        evaluated = {frame.video for frame in self.metric.frames}
        names = [item["name"] for item in engine.data_loader.dataset.data]
        report["skipped"] = [name for name in names if name not in evaluated]
        intervals = report.get("intervals", {})
        for name, value in report["scores"].items():
            low, high = intervals.get(name, (math.nan, math.nan))
            logger.info(f"{name} {value:.3f} (95 % interval {low:.3f} to {high:.3f})")
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(_without_nan(report), indent=2), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Write None for what is undefined, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class DetectionSaver:
    """Writes the detections of each video, as soon as the video is done.

    A video gets a folder ``<output_dir>/<name>``, by the ``name`` of its item, with the ``formats``: ``"coco"``
    (``detections.json``), ``"csv"`` (``detections.csv``), ``"cvat"`` (``annotations.xml``), ``"overlay"``
    (``overlay.mp4``); see :mod:`endofm_monai.formats.writers`. Videos without any detection get them too.

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
            with open_clip(source) as reader, ExitStack() as stack:
                names = [str(index) for index in range(len(frames))]
                video = VideoOutput(folder, item["name"], names, reader.probe(), self.class_names, self.threshold)
                writers = [stack.enter_context(BOX_WRITERS[name](video)) for name in self.formats]
                for index, answer in enumerate(frames if writers else ()):
                    frame = reader.read([index])[:, 0].permute(1, 2, 0).numpy()
                    for write in writers:
                        write(frame, answer)
            count = sum(len(video.likely(answer)["box"]) for answer in frames)
            logger.info(f"{item['name']}: {count} detections in {len(frames)} frames, written to {folder}.")
