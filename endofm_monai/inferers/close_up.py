# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.data.box_utils import box_iou, clip_boxes_to_image
from torchvision.ops import batched_nms

from endofm_monai.inferers.predictor import Answer
from endofm_monai.transforms import FitClip
from endofm_monai.transforms.fit_frame import FrameMap, place


@dataclass
class CloseUp:
    """A second look at small polyps, each enlarged with what surrounds it, as an endoscopist goes nearer.

    A network detects best what is as large as what it has learned from, and a polyp far from the camera covers only a
    few of its tokens. So the best detections of a frame that are smaller than ``share`` are detected once more, in a
    part of the frame in which they are as large as that and which is its own support. Of what is found there, the best
    detection of the same class that overlaps the former one takes its place, with the geometric mean of both scores. A
    detection that is not found again goes.
    """

    detect: Callable[[torch.Tensor], list[Answer]]  # in frames (B, 3, 1, h, w) of the network's size, each alone
    fit: FitClip  # brings frames to this size
    share: float  # side of an enlarged polyp, the root of its box's area, as a share of that of the network's input
    nms_threshold: float = 0.6  # largest IoU of two detections of one class
    count: int = 3  # largest number of detections of a frame that are looked at again
    max_zoom: float = 4.0  # largest factor by which a part is enlarged beyond what the whole frame would be
    iou: float = 0.2  # smallest IoU of the former detection and what takes its place

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"`share` of a close-up must be above 0 and below 1, but got {self.share}.")

    def __call__(self, frame: torch.Tensor, detections: Answer) -> Answer:
        """The detections of a frame, uint8 ``(3, 1, H, W)``, after a second look, best first; boxes in its pixels."""
        height, width = frame.shape[-2:]
        fitting = min(self.fit.frame_map(height, width).zoom)
        target = self.share * math.sqrt(math.prod(self.fit.size))
        side = (detections["box"][:, 2:] - detections["box"][:, :2]).prod(dim=1).sqrt()
        zooms = (target / side / fitting).clamp(max=self.max_zoom).tolist()
        small = [index for index, zoom in enumerate(zooms) if zoom > 1][: self.count]
        if not small:
            return detections
        maps = [self.part_around(detections["box"][i], (width, height), fitting * zooms[i]) for i in small]
        looked = self.detect(torch.stack([place(frame, frame_map) for frame_map in maps]))
        seen = [
            self._find_again(found, frame_map, {name: value[index] for name, value in detections.items()})
            for index, frame_map, found in zip(small, maps, looked, strict=True)
        ]
        others = torch.ones_like(side, dtype=torch.bool)
        others[small] = False
        joined = {name: torch.cat([value[others], *(one[name] for one in seen)]) for name, value in detections.items()}
        box, inside = clip_boxes_to_image(joined["box"], (width, height))
        label, scores = joined["label"][inside], joined["label_scores"][inside]
        kept = batched_nms(box, scores, label, self.nms_threshold)
        return {"box": box[kept], "label": label[kept], "label_scores": scores[kept]}

    def part_around(self, box: torch.Tensor, frame_size: tuple[int, int], zoom: float) -> FrameMap:
        """How a frame of width and height ``frame_size`` moves to show ``box`` enlarged, and no place beyond it."""
        input_size = (self.fit.size[1], self.fit.size[0])
        enlarged = [round(side * zoom) for side in frame_size]
        center = ((box[:2] + box[2:]) / 2 * zoom).tolist()
        shift = [
            round((size - side) / 2) if side <= size else -round(min(max(middle - size / 2, 0), side - size))
            for size, side, middle in zip(input_size, enlarged, center, strict=True)
        ]
        factors = (enlarged[0] / frame_size[0], enlarged[1] / frame_size[1])
        return FrameMap(factors, (float(shift[0]), float(shift[1])), input_size)

    def _find_again(self, found: Answer, frame_map: FrameMap, former: Answer) -> Answer:
        """The one or no detection that takes the place of ``former``."""
        box = frame_map.restore(found["box"])
        overlap = box_iou(box.float(), former["box"][None].float())[:, 0]
        same = ((overlap > self.iou) & (found["label"] == former["label"])).nonzero()[:1, 0]
        scores = (found["label_scores"][same] * former["label_scores"]).sqrt()
        return {"box": box[same], "label": found["label"][same], "label_scores": scores}
