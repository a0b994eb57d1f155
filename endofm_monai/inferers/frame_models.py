# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from endofm_monai.data import ClipInfo, WindowPlan
from endofm_monai.inferers.bundle import Bundle
from endofm_monai.inferers.detection import Detections, StreamingDetector, read_blocks
from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin
from endofm_monai.transforms import NormalizeClipd, ResizeClipd, ScaleCropClipd

__all__ = ["ClassificationModel", "DetectionModel", "FrameModel", "SegmentationModel", "open_frame_model"]


class FrameModel(ABC):
    """Asks a bundle's network about the frames of a video as they come: each is seen with those before it.

    Args:
        bundle: the bundle.
        device: where to compute.
        fps: frames per second, for what depends on them.
    """

    def __init__(self, bundle: Bundle, device: str | torch.device = "cpu", fps: float = 30.0) -> None:
        self.bundle = bundle
        self.device = torch.device(device)
        self.fps = fps
        self.network = bundle.get("network_def").to(self.device).eval()
        bundle.load_weights(self.network)
        self._video: object = None
        self._frames: deque[torch.Tensor] = deque()

    @torch.no_grad()
    def push(self, frame: torch.Tensor, video: object = None) -> Any:
        """Take the next frame of a video, uint8 RGB ``(3, H, W)``, and answer for it; another video begins anew."""
        if video != self._video:
            self._video = video
            self._frames.clear()
        return self._answer(frame.unsqueeze(1))

    def answers(self, source: Any) -> Iterator[Any]:
        """The answers for all frames of a clip, which :func:`endofm_monai.data.open_clip` opens."""
        self._video = object()
        self._frames.clear()
        for block in read_blocks(source, 8):
            for frame in block.unbind(dim=1):
                yield self.push(frame, self._video)

    @abstractmethod
    def uncertainty(self, answer: Any) -> float:
        """How uncertain an answer is, from 0 to 1."""

    @abstractmethod
    def _answer(self, frame: torch.Tensor) -> Any: ...

    def _prepare(self, transforms: Any, frame: torch.Tensor) -> torch.Tensor:
        """Apply those of a bundle's transforms that change frames, not those that read them."""
        kinds = (NormalizeClipd, ResizeClipd, ScaleCropClipd)
        item: Any = {"image": frame}
        for transform in transforms.transforms:
            if isinstance(transform, kinds):
                item = transform(item)
        return item["image"]


class DetectionModel(FrameModel):
    """Answers with the frame's :data:`~endofm_monai.inferers.detection.Detections`, on the CPU, of any score."""

    def __init__(self, bundle: Bundle, device: str | torch.device = "cpu", fps: float = 30.0) -> None:
        super().__init__(bundle, device, fps)
        settings = {key: bundle.get(key) for key in ("fit", "normalize", "num_supports", "window", "seed", "close_up")}
        self._make: Callable[[str], StreamingDetector] = lambda mode: StreamingDetector(
            self.network, mode=mode, **settings
        )
        self._online = self._make("online")

    def answers(self, source: Any) -> Iterator[Detections]:
        """As the bundle's inference gives them: with ``mode`` ``"offline"`` later frames are looked at too."""
        for _, detections in self._make(self.bundle.get("mode")).detect(read_blocks(source, 8)):
            yield {key: value.cpu() for key, value in detections.items()}

    def uncertainty(self, answer: Detections) -> float:
        """By the score that is nearest to the bundle's ``threshold``."""
        return float(score_margin([answer["label_scores"]], self.bundle.get("threshold"))[0])

    def _answer(self, frame: torch.Tensor) -> Detections:
        *_, (_, detections) = self._online.push(frame, self._video)
        return {key: value.cpu() for key, value in detections.items()}


class SegmentationModel(FrameModel):
    """Answers with the probability of the foreground ``(H, W)``, at the frame's size, on the CPU."""

    def uncertainty(self, answer: torch.Tensor) -> float:
        """The entropy of the pixels."""
        return float(mask_entropy(answer[None])[0])

    def _answer(self, frame: torch.Tensor) -> torch.Tensor:
        if self._frames.maxlen is None:
            self._frames = deque(maxlen=self.bundle.get("window"))
        self._frames.append(self._prepare(self.bundle.get("pre_transforms"), frame).to(self.device))
        logits = self.network(torch.cat(tuple(self._frames), dim=1)[None])[0]  # (K, T, h, w)
        item = {"pred": logits[:, -1:], "frames": frame}
        return self.bundle.get("postprocessing")(item)["probability"][0, 0].cpu()


class ClassificationModel(FrameModel):
    """Answers with the probabilities of the classes ``(K,)`` for the window that ends with the frame, on the CPU."""

    def uncertainty(self, answer: torch.Tensor) -> float:
        """The entropy of the classes."""
        return float(class_entropy(answer[None], self.bundle.get("multi_label"))[0])

    def _answer(self, frame: torch.Tensor) -> torch.Tensor:
        plan = WindowPlan(self.bundle.get("num_frames"), self.bundle.get("sampling_rate"))
        if self._frames.maxlen is None:
            self._frames = deque(maxlen=plan.length(ClipInfo(10**9, self.fps, 0, 0, 0.0)))
        self._frames.append(self._prepare(self.bundle.get("preprocessing"), frame))
        known = ClipInfo(len(self._frames), self.fps, 0, 0, len(self._frames) / self.fps)
        clip = torch.cat([self._frames[int(index)] for index in plan.indices(known, 0)], dim=1)
        logits = self.network(clip[None].to(self.device))[0]
        return self.bundle.get("postprocessing")({"pred": logits})["pred"].cpu()


def open_frame_model(bundle: str, device: str | torch.device = "cpu", fps: float = 30.0) -> FrameModel:
    """Open a bundle of detection, segmentation or classification.

    Args:
        bundle: its folder, with weights.
        device: where to compute.
        fps: frames per second of the video.

    Raises:
        BundleError: when it is no such bundle.
        WeightsError: when its weights do not fit, or are not those that were shared.
    """
    opened = Bundle(bundle)
    kinds: dict[str, type[FrameModel]] = {
        "detection": DetectionModel,
        "segmentation": SegmentationModel,
        "classification": ClassificationModel,
    }
    return kinds[opened.task](opened, device, fps)
