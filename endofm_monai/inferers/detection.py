# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from monai.data.box_utils import box_iou, clip_boxes_to_image
from monai.transforms import Transform
from scipy.optimize import linear_sum_assignment
from torchvision.ops import batched_nms

from endofm_monai.data import ClipInfo, ClipReader, SupportSampler
from endofm_monai.inferers.predictor import Answer, Answered, Predictor, finite
from endofm_monai.networks.blocks import FrameFeatures, split_predictions
from endofm_monai.transforms import FitClip, NormalizeClip
from endofm_monai.transforms.fit_frame import FrameMap, place


@dataclass
class SelectDetections(Transform):
    """Choose detections among the predictions of all locations (published rules and thresholds).

    A location and class whose first-stage score, the geometric mean of class probability and centerness, is above
    ``score_threshold`` is a candidate. Its score is the geometric mean of the first and the second stage's; its box is
    the corrected one. The best ``candidates`` of each level go through non-maximum suppression by class.
    """

    score_threshold: float = 0.05  # smallest first-stage score
    nms_threshold: float = 0.6  # largest IoU of two detections of one class
    candidates: int = 1000  # of each level
    max_detections: int = 300  # of a frame

    def __call__(self, pred: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Choose among the output ``(B, 2*K + 12, L)`` of :class:`endofm_monai.networks.nets.EndoFMDetector`.

        Gives for each key frame, on the CPU, ``box`` ``(D, 4)``, xyxy in pixels of the network's input and perhaps
        beyond it, ``label`` ``(D,)``, from 1 to K, and ``label_scores`` ``(D,)``, best first.
        """
        out = split_predictions(pred.float())
        first = (out.class_logits.sigmoid() * out.centerness.sigmoid().unsqueeze(2)).sqrt()  # (B, L, K)
        score = (first * out.refined_logits.sigmoid()).masked_fill(first <= self.score_threshold, 0)
        sizes = out.stride[0].unique_consecutive(return_counts=True)[1].tolist()  # locations of each level
        levels = []
        for part, boxes in zip(score.split(sizes, dim=1), out.refined_box.split(sizes, dim=1), strict=True):
            best, index = part.flatten(1).topk(min(self.candidates, part[0].numel()))
            location, label = index // part.shape[2], index % part.shape[2] + 1
            box = boxes.gather(1, location.unsqueeze(2).expand(-1, -1, 4))
            levels.append(torch.cat([box, best.sqrt().unsqueeze(2), label.unsqueeze(2)], dim=2))
        frames = torch.cat(levels, dim=1).cpu().unbind()  # (M, 6) each
        found = [{"box": one[:, :4], "label": one[:, 5].long(), "label_scores": one[:, 4]} for one in frames]
        found = [_take(answer, answer["label_scores"] > 0) for answer in found]
        return [_take(_suppress(answer, self.nms_threshold), slice(self.max_detections)) for answer in found]


def _take(answer: Answer, which: Any) -> Answer:
    """Some of the detections, or one."""
    return {name: value[which] for name, value in answer.items()}


def _suppress(answer: Answer, threshold: float) -> Answer:
    """Non-maximum suppression by class; the best first."""
    return _take(answer, batched_nms(answer["box"], answer["label_scores"], answer["label"], threshold))


def _clip(answer: Answer, frame: torch.Tensor) -> Answer:
    """Detections inside of a frame ``(..., H, W)``."""
    box, inside = clip_boxes_to_image(answer["box"], (frame.shape[-1], frame.shape[-2]))
    return {**_take(answer, inside), "box": box}


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
        zooms = (target / side / fitting).clamp(max=self.max_zoom)
        small = (zooms > 1).nonzero()[: self.count, 0]
        if not len(small):
            return detections
        former = [_take(detections, index) for index in small]
        maps = [
            self.part_around(one["box"], (width, height), fitting * zoom)
            for one, zoom in zip(former, zooms[small].tolist(), strict=True)
        ]
        looked = self.detect(torch.stack([place(frame, frame_map) for frame_map in maps]))
        seen = list(map(self._find_again, looked, maps, former))
        others = torch.ones_like(side, dtype=torch.bool).index_fill(0, small, False)
        joined = {name: torch.cat([value[others], *(one[name] for one in seen)]) for name, value in detections.items()}
        return _suppress(_clip(joined, frame), self.nms_threshold)

    def part_around(self, box: torch.Tensor, frame_size: tuple[int, int], zoom: float) -> FrameMap:
        """How a frame of width and height ``frame_size`` moves to show ``box`` enlarged, and no place beyond it."""
        input_size = (self.fit.size[1], self.fit.size[0])
        enlarged = [round(side * zoom) for side in frame_size]
        center = ((box[:2] + box[2:]) / 2 * zoom).tolist()
        x, y = (
            round((size - side) / 2) if side <= size else -round(min(max(middle - size / 2, 0), side - size))
            for size, side, middle in zip(input_size, enlarged, center, strict=True)
        )
        factors = (enlarged[0] / frame_size[0], enlarged[1] / frame_size[1])
        return FrameMap(factors, (float(x), float(y)), input_size)

    def _find_again(self, found: Answer, frame_map: FrameMap, former: Answer) -> Answer:
        """The one or no detection that takes the place of ``former``."""
        found = {**found, "box": frame_map.restore(found["box"])}
        overlap = box_iou(found["box"].float(), former["box"][None].float())[:, 0]
        same = _take(found, ((overlap > self.iou) & (found["label"] == former["label"])).nonzero()[:1, 0])
        return {**same, "label_scores": (same["label_scores"] * former["label_scores"]).sqrt()}


@dataclass(eq=False, repr=False)
class DetectionPredictor(Predictor):
    """Detects polyps in each frame of a video.

    Answers have ``box`` ``(D, 4)``, xyxy in pixels of the frame, ``label`` and ``label_scores`` ``(D,)``, best first,
    of any score.

    What the first stage knows of the last frames is kept, and each frame in turn is refined by some of its neighbors,
    its supports: offline by frames before and after it, so that its detections come ``window`` frames later, online by
    frames before it. Which ones depends on nothing but the frame's number and the seed.
    """

    task = "detection"
    mode: str = field(init=False)
    fit: FitClip  # brings frames to the network's size
    normalize: Callable[[torch.Tensor], torch.Tensor] = field(default_factory=NormalizeClip)
    select: SelectDetections = field(default_factory=SelectDetections)
    supports: SupportSampler = field(default_factory=SupportSampler)  # says the mode, too
    close_up: Any = None  # look again at small polyps, enlarged to this share of the frame; see :class:`CloseUp`
    threshold: float = 0.5  # the score from which on a box counts

    def __post_init__(self) -> None:
        self.mode = self.supports.mode
        if self.close_up is not None:
            self.close_up = CloseUp(self.detect_alone, self.fit, self.close_up, self.select.nms_threshold)
        super().__post_init__()

    def begin(self, info: ClipInfo | None = None) -> None:
        super().begin(info)
        self._features: dict[int, list[FrameFeatures]] = {}  # of frames that are due or may support one that is

    def uncertainty(self, answer: Answer) -> float:
        """How near the score of the least certain box is to the threshold; 0 without any box."""
        scores = answer["label_scores"]
        farthest = torch.where(scores < self.threshold, self.threshold, 1 - self.threshold)
        return max((1 - (scores - self.threshold).abs() / farthest.clamp(min=1e-6)).tolist(), default=0.0)

    def detect_alone(self, frames: torch.Tensor) -> list[Answer]:
        """Detections in frames ``(B, 3, 1, h, w)`` of the network's size, in its pixels, each being its own support."""
        levels = self.network.encode(torch.stack([self.normalize(frame) for frame in frames]))
        twice = [FrameFeatures(*(part.repeat_interleave(2, dim=1) for part in level)) for level in levels]
        return self.select(finite(self.network.head.refine(twice)))

    def _take(self, numbers: range, frames: torch.Tensor) -> Answered:
        self._features.update(zip(numbers, self._encode(frames), strict=True))
        return self._give(self._seen - (self.supports.window if self.mode == "offline" else 0))

    def _finish(self) -> Answered:
        return self._give(self._seen)

    def _look_at(self, reader: ClipReader, index: int, info: ClipInfo) -> Answer:
        supports = self.supports.supports(index, info.frames)
        numbers = sorted({index, *supports})
        frames = reader.read(numbers)
        self._frames = {index: frames[:, numbers.index(index)]}
        self._features = dict(zip(numbers, self._encode(frames), strict=True))
        ((_, answer),) = self._detect({index: supports})
        return answer

    def _encode(self, frames: torch.Tensor) -> list[list[FrameFeatures]]:
        """First stage for each of the frames, alone: its features ``(1, 1, ...)`` at each level."""
        batch = self.normalize(self.fit(frames.to(self.device))).transpose(0, 1).unsqueeze(2)  # (T, 3, 1, h, w)
        levels = self.network.encode(batch)
        return [[FrameFeatures(*(part[i : i + 1] for part in level)) for level in levels] for i in range(len(batch))]

    def _give(self, stop: int) -> Answered:
        """Detections of the frames up to ``stop``; then forget the features that no later one needs."""
        due = {number: self.supports.supports(number, self._seen) for number in self._frames if number < stop}
        answered = []
        for count, alike in groupby(due, lambda number: len(due[number])):
            numbers, together = list(alike), max(1, self.block // count)  # so that as many supports are in memory
            for first in range(0, len(numbers), together):
                answered += self._detect({number: due[number] for number in numbers[first : first + together]})
        for number in [number for number in self._features if number < stop - self.supports.window]:
            del self._features[number]
        return answered

    def _detect(self, supports: dict[int, list[int]]) -> Answered:
        """Second stage of frames with as many supports each, and what is chosen, in pixels of the frames."""
        known = [self._features[n] for number, others in supports.items() for n in (number, *others)]
        by_part = (zip(*level, strict=True) for level in zip(*known, strict=True))  # of each level, of all frames
        joined = [[torch.cat(frames, dim=1)[0] for frames in parts] for parts in by_part]
        levels = [FrameFeatures(*(part.unflatten(0, (len(supports), -1)) for part in level)) for level in joined]
        answered = []
        for number, found in zip(supports, self.select(finite(self.network.head.refine(levels))), strict=True):
            frame = self._frames.pop(number)
            answer = _clip({**found, "box": self.fit.frame_map(*frame.shape[-2:]).restore(found["box"])}, frame)
            if self.close_up is not None:
                answer = self.close_up(frame.unsqueeze(1).to(self.device), answer)
            answered.append((frame, answer))
        return answered


@dataclass
class BoxTrack:
    """A polyp in successive frames."""

    label: int  # its class, from 1 on
    boxes: dict[int, torch.Tensor] = field(default_factory=dict)  # by frame, in order; where it was found


@dataclass
class BoxLinker:
    """Links the detections of a video's frames, as they come, to tracks.

    A detection goes on with a track of its class; which with which is decided for all of a frame at once, such that the
    sum of the IoU of each with the last box of its track is largest.

    Example::

        linker = BoxLinker(max_gap=5)
        for frame, answer in predictor("colonoscopy.mp4"):
            numbers = linker.push(answer)  # of the tracks, one a detection
    """

    iou: float = 0.3  # smallest IoU with the track's last box
    max_gap: int = 0  # frames in a row in which a track's polyp may be missed

    def __post_init__(self) -> None:
        self.tracks: list[BoxTrack] = []  # in the order in which they begin
        self._open: list[int] = []
        self.frame = 0  # number of the next one; frames without detections may be passed over

    def push(self, detections: Answer) -> list[int]:
        """For each detection of the next frame, ``box`` and ``label``, the number of its track in ``tracks``."""
        boxes, labels = detections["box"], detections["label"]
        numbers = [-1] * len(boxes)
        oldest = self.frame - 1 - self.max_gap
        self._open = [number for number in self._open if next(reversed(self.tracks[number].boxes)) >= oldest]
        if self._open and numbers:
            tracks = [self.tracks[number] for number in self._open]
            last = torch.stack([track.boxes[next(reversed(track.boxes))] for track in tracks])
            overlap = box_iou(boxes.float(), last.float())
            overlap[labels[:, None].cpu() != torch.tensor([track.label for track in tracks])] = 0
            overlap[overlap < self.iou] = 0
            for row, column in zip(*linear_sum_assignment(overlap.numpy(), maximize=True), strict=True):
                if overlap[row, column] > 0:
                    numbers[row] = self._open[column]
        for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            if numbers[index] < 0:
                numbers[index] = len(self.tracks)
                self._open.append(numbers[index])
                self.tracks.append(BoxTrack(int(label)))
            self.tracks[numbers[index]].boxes[self.frame] = box
        self.frame += 1
        return numbers
