# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from endofm_monai.formats.masks import mask_polygons
from endofm_monai.inferers.frame_models import FrameModel
from endofm_monai.inferers.linking import BoxLinker

__all__ = ["KINDS", "Found", "FrameAnnotator"]

KINDS = {"detection": "rectangle", "segmentation": "polygon", "classification": "tag"}
"""CVAT's name of what each task of a bundle draws."""


@dataclass(frozen=True)
class Found:
    """Something to be drawn in a frame.

    Args:
        label: name of the class.
        points: of a rectangle ``x1, y1, x2, y2``, of a polygon ``x, y`` of each corner, of a tag nothing.
        score: its probability.
        track: number of the polyp in the video; None for a tag.
    """

    label: str
    points: tuple[float, ...]
    score: float
    track: int | None = None


class FrameAnnotator:
    """Turns what a model says of the frames of a video into what is drawn in CVAT, and numbers the polyps.

    Args:
        model: see :func:`endofm_monai.inferers.frame_models.open_frame_model`.
        iou: smallest IoU of a polyp's boxes in two frames; polygons are linked by the boxes around them.
        max_gap: frames in a row in which a polyp may be missed.
        tolerance: how far a polygon may be from the outline of the mask, in pixels; more gives fewer corners to move.
        min_area: smallest polygon in pixels.
    """

    def __init__(
        self, model: FrameModel, iou: float = 0.3, max_gap: int = 5, tolerance: float = 1.0, min_area: int = 64
    ) -> None:
        self.model = model
        self.kind = KINDS[model.bundle.task]
        self.numbers = model.bundle.labels
        self._names = {number: name for name, number in self.numbers.items()}
        self._new_linker = lambda: BoxLinker(iou, max_gap)
        self._tolerance = tolerance
        self._min_area = min_area
        self.begin()

    def begin(self) -> None:
        """Begin a video: its polyps are others."""
        self._linker = self._new_linker()

    def draw(self, answer: Any, threshold: float | None = None) -> list[Found]:
        """Say what to draw of the model's answer for the next frame.

        Args:
            answer: see the models in :mod:`endofm_monai.inferers.frame_models`.
            threshold: smallest score; by default the bundle's ``threshold``, else 0.5.
        """
        if self.kind == "tag":
            named = zip(self.numbers, answer.tolist(), strict=True)
            if self.model.bundle.get("multi_label"):
                return [Found(name, (), score) for name, score in named if score >= (threshold or 0.5)]
            name, score = max(named, key=lambda pair: pair[1])
            return [Found(name, (), score)] if score >= (threshold or 0) else []
        if self.kind == "rectangle":
            kept = answer["label_scores"] >= (self.model.bundle.get("threshold") if threshold is None else threshold)
            boxes, labels, scores = (answer[key][kept] for key in ("box", "label", "label_scores"))
            points = boxes.tolist()
        else:
            mask = answer.numpy() >= (0.5 if threshold is None else threshold)
            points = mask_polygons(mask, self._tolerance, self._min_area)
            corners = [torch.tensor(outline).reshape(-1, 2) for outline in points]
            around = [torch.cat([part.amin(dim=0), part.amax(dim=0)]) for part in corners]
            boxes = torch.stack(around) if around else torch.empty(0, 4)
            labels = torch.full((len(points),), next(iter(self._names)))
            scores = torch.full((len(points),), float(answer.max()))
        tracks = self._linker.push({"box": boxes, "label": labels})
        found = zip(points, labels.tolist(), scores.tolist(), tracks, strict=True)
        return [
            Found(self._names[label], tuple(round(value, 2) for value in values), score, track)
            for values, label, score, track in found
        ]
