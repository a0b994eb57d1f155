# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.data.box_utils import clip_boxes_to_image
from monai.transforms import Transform
from torchvision.ops import batched_nms

from endofm_monai.data import ClipInfo, ClipReader, SupportSampler
from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.predictor import Answer, Answered, Predictor, finite
from endofm_monai.networks.blocks import FrameFeatures, LocationPredictions, split_predictions
from endofm_monai.transforms import FitClip, NormalizeClip


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
        """Choose.

        Args:
            pred: output ``(B, 2*K + 12, L)`` of :class:`endofm_monai.networks.nets.EndoFMDetector`.

        Returns:
            for each key frame ``box`` ``(D, 4)``, xyxy in pixels of the network's input and perhaps beyond it,
            ``label`` ``(D,)``, from 1 to K, and ``label_scores`` ``(D,)``, best first.
        """
        out = split_predictions(pred.float())
        return [self._select(LocationPredictions(*(part[frame] for part in out))) for frame in range(len(pred))]

    def _select(self, out: LocationPredictions) -> dict[str, torch.Tensor]:
        first = (out.class_logits.sigmoid() * out.centerness.sigmoid().unsqueeze(1)).sqrt()  # (L, K)
        score = (first * out.refined_logits.sigmoid()).masked_fill(first <= self.score_threshold, 0)
        refined_box = out.refined_box
        boxes, scores, labels = [], [], []
        for stride in out.stride.unique():
            level = (out.stride == stride).nonzero().squeeze(1)
            best, index = score[level].flatten().topk(min(self.candidates, len(level) * score.shape[1]))
            boxes.append(refined_box[level[index[best > 0] // score.shape[1]]])
            scores.append(best[best > 0].sqrt())
            labels.append(index[best > 0] % score.shape[1] + 1)
        box, label_scores, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        kept = batched_nms(box, label_scores, label, self.nms_threshold)[: self.max_detections]
        return {"box": box[kept], "label": label[kept], "label_scores": label_scores[kept]}


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
        """Forget all frames, and begin a video."""
        super().begin(info)
        self._features: dict[int, list[FrameFeatures]] = {}  # of frames that are due or may support one that is

    def uncertainty(self, answer: Answer) -> float:
        """How near the score of the least certain box is to the threshold; 0 without any box."""
        scores = answer["label_scores"]
        farthest = torch.where(scores < self.threshold, self.threshold, 1 - self.threshold)
        return max((1 - (scores - self.threshold).abs() / farthest).tolist(), default=0.0)

    def detect_alone(self, frames: torch.Tensor) -> list[Answer]:
        """Detections in frames ``(B, 3, 1, h, w)`` of the network's size, in its pixels, each being its own support."""
        levels = self.network.encode(torch.stack([self.normalize(frame) for frame in frames]))
        return self.select(finite(self.network.head.refine([_join([level, level]) for level in levels])))

    def _take(self, numbers: range, frames: torch.Tensor) -> Answered:
        self._features.update(zip(numbers, self._encode(frames), strict=True))
        return self._give(self._seen - (self.supports.window if self.mode == "offline" else 0))

    def _finish(self) -> Answered:
        return self._give(self._seen)

    def _look_at(self, reader: ClipReader, index: int, info: ClipInfo) -> Answer:
        numbers = sorted({index, *self.supports.supports(index, info.frames)})
        frames = reader.read(numbers)
        self._frames = {index: frames[:, numbers.index(index)]}
        self._features = dict(zip(numbers, self._encode(frames), strict=True))
        return self._detect(index, info.frames)

    def _encode(self, frames: torch.Tensor) -> list[list[FrameFeatures]]:
        """First stage for each of the frames, alone: its features ``(1, 1, ...)`` at each level."""
        batch = self.normalize(self.fit(frames.to(self.device))).transpose(0, 1).unsqueeze(2)  # (T, 3, 1, h, w)
        levels = self.network.encode(batch)
        return [[FrameFeatures(*(part[i : i + 1] for part in level)) for level in levels] for i in range(len(batch))]

    def _give(self, stop: int) -> Answered:
        """Detections of the frames up to ``stop``; then forget the features that no later one needs."""
        answered = []
        for number in [number for number in self._frames if number < stop]:
            detections = self._detect(number, self._seen)
            answered.append((self._frames.pop(number), detections))
        for number in [number for number in self._features if number < stop - self.supports.window]:
            del self._features[number]
        return answered

    def _detect(self, number: int, frames: int) -> Answer:
        """Second stage of a frame with its supports, and what is chosen, in pixels of the frame."""
        frame = self._frames[number]
        chosen = [self._features[n] for n in (number, *self.supports.supports(number, frames))]
        (found,) = self.select(
            finite(self.network.head.refine([_join(levels) for levels in zip(*chosen, strict=True)]))
        )
        height, width = frame.shape[-2:]
        box, kept = clip_boxes_to_image(self.fit.frame_map(height, width).restore(found["box"]), (width, height))
        found = {"box": box, "label": found["label"][kept], "label_scores": found["label_scores"][kept]}
        if self.close_up is not None:
            found = self.close_up(frame.unsqueeze(1).to(self.device), found)
        return {name: value.cpu() for name, value in found.items()}


def _join(frames: Sequence[FrameFeatures]) -> FrameFeatures:
    """Features of several frames of a clip."""
    return FrameFeatures(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))
