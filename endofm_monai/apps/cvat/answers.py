# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from endofm_monai.data import ClipInfo, rgb_pixels
from endofm_monai.formats import mask_polygons
from endofm_monai.inferers import Answer, BoxLinker, Bundle, load_predictor
from endofm_monai.utils.settings import check_number

KINDS = {"detection": "rectangle", "segmentation": "polygon", "classification": "tag"}  # CVAT's names


@dataclass(frozen=True)
class Found:
    """Something to be drawn in a frame."""

    label: str  # name of the class
    points: tuple[float, ...]  # of a rectangle x1, y1, x2, y2, of a polygon x, y of each corner, of a tag nothing
    score: float  # its probability
    track: int | None = None  # number of the polyp in the video; None for a tag


@dataclass
class FrameAnnotator:
    """Turns a predictor's answers for the frames of a video into what is drawn in CVAT, and numbers the polyps."""

    predictor: Any  # of one of the three tasks
    labels: Mapping[str, int]  # number of each class in the answers, by name
    iou: float = 0.3  # smallest of a polyp's boxes in two frames; polygons are linked by the boxes around them
    max_gap: int = 5  # frames in a row in which a polyp may be missed
    tolerance: float = 1.0  # pixels from a polygon to the mask's outline; more gives fewer corners to move
    min_area: int = 64  # smallest polygon in pixels

    def __post_init__(self) -> None:
        for key in ("iou", "max_gap", "tolerance", "min_area"):
            check_number(key, getattr(self, key))
        self.kind = KINDS[self.predictor.task]
        self.begin()

    def begin(self, info: ClipInfo | None = None) -> None:
        """Begin a video: its polyps are others."""
        self.predictor.begin(info)
        self._linker = BoxLinker(self.iou, self.max_gap)

    def push(self, image: Image.Image, threshold: float | None = None) -> list[Found]:
        """Say at once what to draw in the next frame; the predictor must be ``"online"``."""
        frame = torch.from_numpy(rgb_pixels(image).copy()).permute(2, 0, 1)
        ((_, answer),) = self.predictor.push(frame[:, None])
        return self.draw(answer, threshold)

    def draw(self, answer: Answer, threshold: float | None = None) -> list[Found]:
        """Say what to draw of the answer for the next frame, of at least the score ``threshold``, or the bundle's."""
        if self.kind == "tag":
            named = list(zip(self.labels, answer["probabilities"].tolist(), strict=True))
            if not self.predictor.multi_label:
                named, threshold = [max(named, key=lambda pair: pair[1])], threshold or 0.0
            smallest = 0.5 if threshold is None else threshold
            return [Found(name, (), score) for name, score in named if score >= smallest]
        if self.kind == "rectangle":
            kept = answer["label_scores"] >= (self.predictor.threshold if threshold is None else threshold)
            boxes, labels, likely = (answer[key][kept] for key in ("box", "label", "label_scores"))
            points, scores = boxes.tolist(), likely.tolist()
        else:
            mask = answer["mask"] > 0 if threshold is None else answer["probability"] >= threshold
            points = mask_polygons(mask[0].numpy(), self.tolerance, self.min_area)
            around = [(min(x), min(y), max(x), max(y)) for x, y in ((each[::2], each[1::2]) for each in points)]
            boxes, labels = torch.tensor(around).reshape(-1, 4), torch.full((len(points),), min(self.labels.values()))
            sides = [(int(x1), int(y1), math.ceil(x2), math.ceil(y2)) for x1, y1, x2, y2 in around]
            scores = [float(answer["probability"][0, y1:y2, x1:x2].max()) for x1, y1, x2, y2 in sides]
        tracks = self._linker.push({"box": boxes, "label": labels})
        names = {number: name for name, number in self.labels.items()}
        return [
            Found(names[label], tuple(round(value, 2) for value in values), score, track)
            for values, label, score, track in zip(points, labels.tolist(), scores, tracks, strict=True)
        ]


def open_annotator(bundle: str, device: str = "cpu", mode: str = "online", **options: Any) -> FrameAnnotator:
    """Open a bundle with its weights; see :func:`endofm_monai.inferers.load_predictor` and :class:`FrameAnnotator`."""
    return FrameAnnotator(load_predictor(bundle, device, mode=mode), Bundle(bundle).labels, **options)
