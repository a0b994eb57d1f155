# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.data.box_utils import clip_boxes_to_image
from monai.inferers import Inferer
from monai.transforms import Transform
from monai.utils import TransformBackends
from torch import nn
from torchvision.ops import batched_nms

from endofm_monai.data import ClipInfo, ClipReader, SupportSampler, open_clip
from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.predictor import Answer, Answered, Predictor
from endofm_monai.inferers.uncertainty import score_margin
from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks import FrameFeatures, LocationPredictions, split_predictions
from endofm_monai.transforms import FitClip, NormalizeClip

__all__ = [
    "ClipDetector",
    "DetectionPredictor",
    "Detections",
    "SelectDetections",
    "StreamingDetector",
    "VideoDetectionInferer",
    "read_blocks",
]


class SelectDetections(Transform):
    """Choose detections among the predictions of all locations (published rules and thresholds).

    A location and class whose first-stage score, the geometric mean of class probability and centerness, is above
    ``score_threshold`` is a candidate. Its score is the geometric mean of the first and the second stage's; its box is
    the corrected one. The best ``candidates`` of each level go through non-maximum suppression by class.

    Args:
        score_threshold: smallest first-stage score.
        nms_threshold: largest IoU of two detections of one class.
        candidates: number of candidates of each level.
        max_detections: number of detections of a frame.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        candidates: int = 1000,
        max_detections: int = 300,
    ) -> None:
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.candidates = candidates
        self.max_detections = max_detections

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


Detections = Answer


class DetectionPredictor(Predictor):
    """Detects polyps in each frame of a video.

    Answers have ``box`` ``(D, 4)``, xyxy in pixels of the frame, ``label`` and ``label_scores`` ``(D,)``, best first,
    of any score.

    What the first stage knows of the last frames is kept, and each frame in turn is refined by some of its neighbors,
    its supports: offline by frames before and after it, so that its detections come ``window`` frames later, online by
    frames before it. Which ones depends on nothing but the frame's number and the seed.

    Args:
        network: an :class:`endofm_monai.networks.nets.EndoFMDetector`.
        fit: brings frames to the network's size.
        normalize: brings pixels to the network's range.
        select: chooses among the network's predictions.
        supports: chooses the supports, and says the mode.
        close_up: look again at small polyps, enlarged to this share of the frame; see
            :class:`endofm_monai.inferers.CloseUp`.
        threshold: the score from which on a box counts.
        options: see :class:`Predictor`.
    """

    task = "detection"

    def __init__(
        self,
        network: nn.Module,
        fit: FitClip,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
        select: SelectDetections | None = None,
        supports: SupportSampler | None = None,
        close_up: float | None = None,
        threshold: float = 0.5,
        **options: Any,
    ) -> None:
        self.fit = fit
        self.normalize = normalize or NormalizeClip()
        self.select = select or SelectDetections()
        self.supports = supports or SupportSampler()
        self.close_up = (
            None if close_up is None else CloseUp(self.detect_alone, fit, close_up, self.select.nms_threshold)
        )
        self.threshold = threshold
        super().__init__(network, mode=self.supports.mode, **options)

    def begin(self, info: ClipInfo | None = None) -> None:
        """Forget all frames, and begin a video."""
        super().begin(info)
        self._features: dict[int, list[FrameFeatures]] = {}  # of frames that are due or may support one that is

    def uncertainty(self, answer: Answer) -> float:
        """By the score that is nearest to the threshold."""
        return float(score_margin([answer["label_scores"]], self.threshold)[0])

    def detect_alone(self, frames: torch.Tensor) -> list[Detections]:
        """Detections in frames ``(B, 3, 1, h, w)`` of the network's size, in its pixels, each being its own support."""
        levels = self.network.encode(torch.stack([self.normalize(frame) for frame in frames]))
        return self.select(self.network.head.refine([_join([level, level]) for level in levels]))

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
        (found,) = self.select(self.network.head.refine([_join(levels) for levels in zip(*chosen, strict=True)]))
        height, width = frame.shape[-2:]
        box, kept = clip_boxes_to_image(self.fit.frame_map(height, width).restore(found["box"]), (width, height))
        found = {"box": box, "label": found["label"][kept], "label_scores": found["label_scores"][kept]}
        if self.close_up is not None:
            found = self.close_up(frame.unsqueeze(1).to(self.device), found)
        return {name: value.cpu() for name, value in found.items()}


def _join(frames: Sequence[FrameFeatures]) -> FrameFeatures:
    """Features of several frames of a clip."""
    return FrameFeatures(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))


class StreamingDetector:
    """Detects polyps in the frames of a video as they come, encoding each frame once.

    What the first stage knows of the last frames is kept, and each frame in turn is refined by some of its neighbours:
    in the ``"offline"`` mode by frames before and after it, so that its detections come ``window`` frames later; in the
    ``"online"`` mode, for live use, by frames before it, and at once. Which neighbours depends on nothing but the
    seed and the frame's number, and a frame of another video is never among them.

    Args:
        network: an :class:`endofm_monai.networks.nets.EndoFMDetector`; set it to evaluation before.
        fit: brings frames to the network's size.
        normalize: brings pixels to the network's range.
        select: chooses among the network's predictions.
        num_supports: number of neighbours; fewer where the video has no more.
        window: their largest distance in frames.
        mode: ``"offline"`` or ``"online"``.
        seed: seed of the choice of neighbours.
        device: where to compute; by default where the network is.
        close_up: look again at small polyps, enlarged to this share of the frame; see
            :class:`endofm_monai.inferers.close_up.CloseUp`.
        reference_clamped_supports: draw half of the supports from the places of the ``window`` frames before, half from
            those of the frames after; beyond an end of the video its first or last frame takes their place, so that a
            frame may support another twice, or itself, as published (10 of 9 + 9 places). Only ``"offline"``.

    Raises:
        ValueError: when ``mode`` is neither, or does not go with ``reference_clamped_supports``, or ``close_up`` is no
            share.

    Example::

        detector = StreamingDetector(network, FitClip(256), mode="online")
        for frame in camera:  # uint8 (3, H, W)
            ((index, detections),) = detector.push(frame.unsqueeze(1), video="live")
    """

    def __init__(
        self,
        network: nn.Module,
        fit: FitClip,
        normalize: NormalizeClip | None = None,
        select: SelectDetections | None = None,
        num_supports: int = 10,
        window: int = 9,
        mode: str = "offline",
        seed: int = 0,
        device: str | torch.device | None = None,
        close_up: float | None = None,
        reference_clamped_supports: bool = False,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f'`mode` must be "offline" or "online", but got {mode!r}.')
        if reference_clamped_supports and mode == "online":
            raise ValueError('`reference_clamped_supports` goes only with `mode` "offline".')
        self.network = unwrap(network)
        self.fit = fit
        self.normalize = normalize or NormalizeClip()
        self.select = select or SelectDetections()
        self.num_supports = num_supports
        self.window = window
        self.mode = mode
        self.seed = seed
        self.reference_clamped_supports = reference_clamped_supports
        self.device = device or next(network.parameters()).device
        self.close_up = None if close_up is None else CloseUp(self._alone, fit, close_up, self.select.nms_threshold)
        self.reset()

    @torch.no_grad()
    def _alone(self, frames: torch.Tensor) -> list[Detections]:
        levels = self.network.encode(torch.stack([self.normalize(frame.to(self.device)) for frame in frames]))
        return self.select(self.network.head.refine([_join([level, level]) for level in levels]))

    def reset(self, video: object = None) -> None:
        """Forget all frames, and begin ``video``."""
        self.video = video
        self._memory: OrderedDict[int, list[FrameFeatures]] = OrderedDict()
        self._due_frames: dict[int, torch.Tensor] = {}  # for close-ups
        self._frame_size: Sequence[int] = (0, 0)
        self._seen = 0  # frames of the video
        self._done = 0  # frames whose detections were given

    @property
    def memory_bytes(self) -> int:
        """Size of what is kept of frames; bounded by the window, whatever the length of the video."""
        features = sum(part.nbytes for levels in self._memory.values() for level in levels for part in level)
        return features + sum(frame.nbytes for frame in self._due_frames.values())

    def detect(self, blocks: Iterable[torch.Tensor], video: object = None) -> Iterator[tuple[int, Detections]]:
        """Detect in a whole video, given in blocks of frames; see ``push``."""
        self.reset(video)
        for block in blocks:
            yield from self.push(block, video)
        yield from self.flush()

    def push(self, frames: torch.Tensor, video: object = None) -> list[tuple[int, Detections]]:
        """Take the next frames of a video.

        Args:
            frames: one or more frames, uint8 ``(3, T, H, W)``. More at a time are quicker on a GPU.
            video: name of the video. With another one than before the detector starts anew, and what is still due of
                the former one is lost, unless ``flush`` was called. Where the size of the frames changes within a
                video, frames before and after do not support each other.

        Returns:
            number and detections of each frame that is due, in order.
        """
        due: list[tuple[int, Detections]] = []
        if video != self.video:
            self.reset(video)
        elif self._seen and frames.shape[-2:] != self._frame_size:
            due = self.flush()
            self._memory.clear()
        self._frame_size = frames.shape[-2:]
        for levels, frame in zip(self.encode(frames), frames.split(1, dim=1), strict=True):
            self._memory[self._seen] = levels
            if self.close_up is not None:
                self._due_frames[self._seen] = frame
            self._seen += 1
        return due + self._give(self._seen - (self.window if self.mode == "offline" else 0))

    def flush(self) -> list[tuple[int, Detections]]:
        """Give the detections of the last frames of a video, after which none comes."""
        return self._give(self._seen)

    @torch.no_grad()
    def encode(self, frames: torch.Tensor) -> list[list[FrameFeatures]]:
        """First stage for each of the frames, alone: its features ``(1, 1, ...)`` at each level."""
        batch = self.normalize(self.fit(frames.to(self.device))).transpose(0, 1).unsqueeze(2)  # (T, 3, 1, H, W)
        levels = self.network.encode(batch)
        return [[FrameFeatures(*(part[i : i + 1] for part in level)) for level in levels] for i in range(len(batch))]

    @torch.no_grad()
    def refine(
        self, key: list[FrameFeatures], supports: list[list[FrameFeatures]], frame_size: Sequence[int]
    ) -> Detections:
        """Second stage of a key frame of height and width ``frame_size``, and what is chosen, in its pixels.

        A frame without any support is its own, as at the ends of a video in the published code: the network has never
        seen the features of a frame without those of a support added.
        """
        supports = supports or [key]
        levels = [
            FrameFeatures(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))
            for frames in zip(key, *supports, strict=True)
        ]
        (found,) = self.select(self.network.head.refine(levels))
        height, width = frame_size
        box, kept = clip_boxes_to_image(self.fit.frame_map(height, width).restore(found["box"]), (width, height))
        return {"box": box, "label": found["label"][kept], "label_scores": found["label_scores"][kept]}

    def supports(self, index: int) -> list[int]:
        """Numbers of the frames that support frame ``index``, of those in memory."""
        random = np.random.default_rng([self.seed, index])
        if self.reference_clamped_supports:
            distances, half = np.arange(1, self.window + 1), self.num_supports // 2
            left, right = random.permutation(index - distances), random.permutation(index + distances)
            places = np.concatenate([left[:half], right[: self.num_supports - half]])
            return places.clip(min(self._memory), self._seen - 1).tolist()
        before = [frame for frame in self._memory if index - self.window <= frame < index]
        after = [frame for frame in self._memory if index < frame <= index + self.window and self.mode == "offline"]
        share = min(len(before), max(self.num_supports // 2, self.num_supports - len(after)))
        drawn = [*random.permutation(before)[:share], *random.permutation(after)[: self.num_supports - share]]
        return [int(frame) for frame in drawn]

    def _give(self, stop: int) -> list[tuple[int, Detections]]:
        """Detections of the frames up to ``stop``; then forget the frames that no later one needs."""
        due = []
        for index in range(self._done, stop):
            supports = [self._memory[frame] for frame in self.supports(index)]
            detections = self.refine(self._memory[index], supports, self._frame_size)
            if self.close_up is not None:
                detections = self.close_up(self._due_frames.pop(index), detections)
            due.append((index, detections))
            self._done = index + 1
            while next(iter(self._memory)) < self._done - self.window:
                self._memory.popitem(last=False)
        return due


class ClipDetector:
    """Detector in the form that MONAI Label asks for: called with images, it gives a dictionary for each.

    Args:
        network: an :class:`endofm_monai.networks.nets.EndoFMDetector`.
        fit: brings frames to the network's size.
        normalize: brings pixels to the network's range.
        close_up: see :class:`StreamingDetector`.

    Example::

        detector = ClipDetector(network, FitClip(640))
        detector(torch.zeros(1, 3, 480, 640, dtype=torch.uint8))[0]["box"]  # (D, 4)
    """

    def __init__(
        self,
        network: nn.Module,
        fit: FitClip,
        normalize: NormalizeClip | None = None,
        close_up: float | None = None,
    ) -> None:
        self.network = network
        self.fit = fit
        self.normalize = normalize
        self.close_up = close_up

    def __call__(self, inputs: torch.Tensor | Sequence[torch.Tensor], use_inferer: bool = True) -> list[Detections]:
        """Detect.

        Args:
            inputs: images ``(3, H, W)``, or clips ``(3, T, H, W)`` whose first frame is to be looked at and whose
                others support it; uint8 RGB ``0..255``, rows first.
            use_inferer: not used; MONAI Label passes it.

        Returns:
            ``box``, ``label`` and ``label_scores`` of each image, boxes xyxy in its pixels.
        """
        self.network.eval()
        detector = StreamingDetector(self.network, self.fit, self.normalize, close_up=self.close_up)
        found = []
        for clip in (image.unsqueeze(1) if image.ndim == 3 else image for image in inputs):
            key, *supports = detector.encode(clip)
            detections = detector.refine(key, supports, clip.shape[-2:])
            found.append(detections if detector.close_up is None else detector.close_up(clip[:, :1], detections))
        return found


class VideoDetectionInferer(Inferer):
    """Detects in whole videos of any length, which are read piece by piece.

    Args:
        block: frames that are read and encoded at a time.
        streaming: arguments of :class:`StreamingDetector`.

    Raises:
        ValueError: when that refuses them.
    """

    def __init__(self, block: int = 8, **streaming: Any) -> None:
        super().__init__()
        StreamingDetector(nn.Linear(1, 1), **streaming)  # what it refuses shall not come after an epoch of training
        self.block = block
        self.streaming = streaming

    def __call__(self, inputs: Sequence[Any], network: nn.Module, *args: Any, **kwargs: Any) -> list[list[Detections]]:
        """Detect.

        Args:
            inputs: videos: what :func:`endofm_monai.data.open_clip` opens.
            network: an :class:`endofm_monai.networks.nets.EndoFMDetector`.
            args: not used.
            kwargs: not used.

        Returns:
            the detections of each frame of each video, on the CPU.

        Raises:
            ClipReadError: when a frame cannot be read.
        """
        detector = StreamingDetector(network, **self.streaming)
        return [
            [
                {name: value.cpu() for name, value in detections.items()}
                for _, detections in detector.detect(read_blocks(source, self.block), video=str(source))
            ]
            for source in inputs
        ]


def read_blocks(source: str | os.PathLike | Sequence[str], block: int) -> Iterator[torch.Tensor]:
    """Frames of a clip, ``block`` at a time: uint8 ``(3, T, H, W)``."""
    with open_clip(source) as reader:
        frames = reader.probe().frames
        for start in range(0, frames, block):
            yield reader.read(range(start, min(start + block, frames)))
