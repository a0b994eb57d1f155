# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from endofm_monai.apps.active_learning import score_margin
from endofm_monai.apps.monai_label.lib.clip_context import Clip
from endofm_monai.apps.monai_label.lib.infers.task import EndoInferTask, wanted_frame
from endofm_monai.data import open_clip

__all__ = ["Detection"]


class Detection(EndoInferTask):
    """Gives the boxes of a frame with scores: ``detections``, xyxy in pixels, and the same as polygons.

    ``score_threshold`` in a request is the smallest score; by default the bundle's ``threshold``. The network refines
    the frame by others of the bundle's ``window`` before and after it, evenly spread.
    """

    infer_type = InferType.DETECTION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """None: the detector takes frames as they are."""
        return []

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """None: the detector gives boxes of the frame."""
        return []

    def detector(self, data: Any = None) -> Callable:
        """The bundle's detector."""
        return self.bundle.get("detector")

    def writer(self, data: Any, extension: Any = None, dtype: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Describe the boxes; there is no file."""
        threshold = float(data.get("score_threshold", self.bundle.get("threshold")))
        names = {number: name for name, number in self.labels.items()}
        found = zip(data["box"].tolist(), data["label"].tolist(), data["label_scores"].tolist(), strict=True)
        detections = [
            {"label": names[label], "score": round(score, 5), "box": [round(side, 2) for side in box]}
            for box, label, score in found
            if score >= threshold
        ]
        elements = [
            {"label": item["label"], "contours": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]}
            for item in detections
            for x1, y1, x2, y2 in [item["box"]]
        ]
        return None, {"detections": detections, "annotations": [{"annotation": {"elements": elements}}]}

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        frame = wanted_frame(clip)
        reach, supports = self.bundle.get("window"), self.bundle.get("num_supports")
        others = [
            index for index in range(max(0, frame - reach), min(clip.length, frame + reach + 1)) if index != frame
        ]
        chosen = np.unique(np.linspace(0, len(others) - 1, min(supports, len(others))).round().astype(int))
        with open_clip(clip.source) as reader:
            return [{"image": reader.read([frame, *(others[index] for index in chosen)])}]

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(score_margin([data["label_scores"]], self.bundle.get("threshold"))[0])
