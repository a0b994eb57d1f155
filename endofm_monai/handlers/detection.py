# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, State
from monai.data.box_utils import clip_boxes_to_image

from endofm_monai.data import ClipReadError
from endofm_monai.formats import BOX_WRITERS
from endofm_monai.handlers.rows import Report
from endofm_monai.handlers.savers import FrameSaver
from endofm_monai.metrics import DetectionFrame, average_precision, detection_report
from endofm_monai.utils import write_json

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class DetectionReport(Report):
    """Key metric: the average precision at IoU 0.5.

    With ``output_dir``, ``detection.json`` has all of :func:`endofm_monai.metrics.detection_report`, and as
    ``skipped`` the names of videos that could not be read. Of true boxes there is only what lies in the frame.
    """

    class_names: Sequence[str] = ("polyp",)
    threshold: float | None = None  # smallest score of a detection; None is the one with the best F1
    resamples: int = 1000  # of whole videos, for intervals

    def _row(self, state: State) -> DetectionFrame:
        item, info, place = state.item, state.info, state.piece
        if len(item["box"]) != info.frames:
            raise ClipReadError(f"{item['name']}: has {info.frames} frames, but boxes for {len(item['box'])} frames")
        box = np.asarray(item["box"][place], np.float32).reshape(-1, 4)
        box, kept = clip_boxes_to_image(box, (info.width, info.height))
        label = np.asarray(item["box_label"][place], np.int64)[kept]
        found, classes, score = (state.answer[key].numpy() for key in ("box", "label", "label_scores"))
        group = str(item.get("group", item["video"]))
        return DetectionFrame(item["name"], place, box, label, found, classes, score, group)

    def _lack(self, items: Sequence[dict[str, Any]]) -> str:
        has_box = any(boxes for item in items for boxes in item["box"])
        return "" if has_box else "no frame of the validation has a box"

    def _metrics(self, rows: list[DetectionFrame], name: str) -> dict[str, float]:
        return {name: average_precision(rows)["ap50"]}

    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        report = detection_report(self.gathered.flat(), self.class_names, self.threshold, self.resamples)
        for name, value in report["scores"].items():
            low, high = report.get("intervals", {}).get(name, (math.nan, math.nan))
            logger.info(f"{name} {value:.3f} (95 % interval {low:.3f} to {high:.3f})")
        write_json(folder / "detection.json", {**report, "skipped": skipped})


class DetectionSaver(FrameSaver):
    """Writes ``detections.json`` (COCO), ``detections.csv``, ``annotations.xml`` (CVAT) and ``overlay.mp4``."""

    writers = BOX_WRITERS
