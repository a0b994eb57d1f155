# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import nn

from endofm_monai.data import ClipInfo, ClipReader
from endofm_monai.inferers.predictor import Answer, Answered, Predictor, binary_entropy, finite


@dataclass(eq=False, repr=False)
class SegmentationPredictor(Predictor):
    """Segments each frame of a video.

    Answers have ``mask``, uint8 ``(1, H, W)``, 0 or 1; ``probability`` of the foreground, float32 of the same shape;
    and ``logits`` ``(K, h, w)`` at the network's size.

    Offline the network sees windows at every ``stride``, the last one shifted to the end of the video, and a frame has
    the mean of the logits of all windows that hold it; a video that is shorter than a window is seen whole. Online it
    sees, for every frame, the window that ends with it, which costs ``stride`` times as much.

    With ``mirror`` the class probabilities of a window and of its three mirror images are averaged, at four times the
    cost: endoscopes look from any side, so a frame has no up and no left.
    """

    task = "segmentation"
    preprocess: Callable[[torch.Tensor], torch.Tensor]  # brings uint8 (3, T, H, W) to the network's size and range
    window: int = 8  # frames of a window
    stride: int = 4  # frames from one window to the next, at most `window`
    window_batch_size: int = 1  # windows that are run together
    mirror: bool = False
    postprocess: Callable[[torch.Tensor], Any] | None = None  # of masks; a `probability` above 1/2 tells the former one

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"`stride` must be from 1 to `window`={self.window}, but got {self.stride}.")
        super().__post_init__()

    def begin(self, info: ClipInfo | None = None) -> None:
        super().begin(info)
        self._inputs: dict[int, torch.Tensor] = {}  # what the network sees of frames of windows to come
        self._totals: dict[int, torch.Tensor] = {}  # sums of the logits (mirror images, K, h, w) of a frame
        self._counts: Counter[int] = Counter()  # windows in them
        self._waiting: list[range] = []  # windows that are complete
        self._start = 0  # of the next window

    def uncertainty(self, answer: Answer) -> float:
        """The mean entropy of the pixels."""
        return float(binary_entropy(answer["probability"]).mean())

    def _take(self, numbers: range, frames: torch.Tensor) -> Answered:
        self._prepare(numbers, frames)
        if self.mode == "online":
            self._run([range(max(0, number + 1 - self.window), number + 1) for number in numbers])
            return self._give(numbers.stop)
        while self._start + self.window <= self._seen:
            self._waiting.append(range(self._start, self._start + self.window))
            self._start += self.stride
        whole = len(self._waiting) // self.window_batch_size * self.window_batch_size
        self._run(self._waiting[:whole])
        self._waiting = self._waiting[whole:]
        # a last window may still hold the last `window` frames
        return self._give(min([self._seen - self.window, *(window.start for window in self._waiting)]))

    def _finish(self) -> Answered:
        last = range(max(0, self._seen - self.window), self._seen)
        if self.mode == "offline" and self._seen and self._start - self.stride < last.start:
            self._waiting.append(last)
        self._run(self._waiting)
        self._waiting = []
        return self._give(self._seen)

    def _look_at(self, reader: ClipReader, index: int, info: ClipInfo) -> Answer:
        windows = [range(max(0, index + 1 - self.window), index + 1)]
        if self.mode == "offline":
            last = max(0, info.frames - self.window)
            starts = (*range(0, last, self.stride), last)
            every = (range(start, min(start + self.window, info.frames)) for start in starts)
            windows = [window for window in every if index in window]
        span = range(windows[0].start, windows[-1].stop)
        frames = reader.read(span)
        self._prepare(span, frames)
        self._run(windows)
        self._frames = {index: frames[:, index - span.start]}
        ((_, answer),) = self._give(index + 1)
        return answer

    def _prepare(self, numbers: range, frames: torch.Tensor) -> None:
        inputs = self.preprocess(frames.to(self.device)).to(self.device)
        self._inputs.update(zip(numbers, inputs.unbind(1), strict=True))

    def _run(self, windows: Sequence[range]) -> None:
        """Let the network see windows, ``window_batch_size`` of one length at a time."""
        mirrored: Sequence[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if self.mirror else [()]
        for _, group in groupby(windows, len):
            alike = list(group)
            for first in range(0, len(alike), self.window_batch_size):
                batch = alike[first : first + self.window_batch_size]
                clips = torch.stack([torch.stack([self._inputs[number] for number in w], dim=1) for w in batch])
                images = [finite(self.network(clips.flip(axes))).flip(axes).float() for axes in mirrored]
                for window, logits in zip(batch, torch.stack(images, dim=1), strict=True):
                    for number in window if self.mode == "offline" else window[-1:]:
                        self._totals[number] = self._totals.get(number, 0) + logits[:, :, number - window.start]
                        self._counts[number] += 1

    def _give(self, stop: int) -> Answered:
        """Answer for the frames up to ``stop``, and forget what no later window needs."""
        for number in [number for number in self._inputs if number < min(stop, self._seen - self.window)]:
            del self._inputs[number]
        numbers = [number for number in self._frames if number < stop]
        if not numbers:
            return []
        frames = [self._frames.pop(number) for number in numbers]
        means = [self._totals.pop(number) / self._counts.pop(number) for number in numbers]
        logits = torch.stack(means, dim=2)  # (mirror images, K, T, h, w)
        if self.mirror:
            probabilities = logits.softmax(dim=1).mean(dim=0)
            logits = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()  # finite, so that it can be resized
        else:
            logits = logits[0]
        parts = (part.cpu().unbind(1) for part in (*mask_from_logits(logits, frames[0].shape[-2:]), logits))
        answers = [{"mask": m, "probability": p, "logits": each} for m, p, each in zip(*parts, strict=True)]
        if self.postprocess is not None:
            for answer in answers:
                mask = self.postprocess(answer["mask"])
                answer["mask"] = convert_to_tensor(mask, dtype=torch.uint8, track_meta=False)
        return list(zip(frames, answers, strict=True))


def mask_from_logits(logits: torch.Tensor, frame_size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Give uint8 masks, 0 or 1, and float32 probabilities of the foreground, both ``(1, T, H, W)``.

    A pixel is foreground where the background, the first of ``(K, T, h, w)``, has a probability below one half,
    with two classes the argmax.
    """
    probability = 1 - logits.float().softmax(dim=0)[:1]
    if probability.shape[-2:] != frame_size:
        frames = F.interpolate(probability.transpose(0, 1), frame_size, mode="bilinear", antialias=True)
        probability = frames.transpose(0, 1)
    return (probability > 0.5).to(torch.uint8), probability


@dataclass(eq=False)
class MaskInferer(Inferer):
    """Segments frames on their own, for MONAI Label's ``monaibundle`` app, which runs networks by MONAI's inferers."""

    predictor: SegmentationPredictor

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """From clips, uint8 ``(B, 3, 1, H, W)``, to masks ``(B, W, H)``: MONAI Label counts x first."""
        self.predictor.network = network
        masks = []
        for clip in convert_to_tensor(inputs, track_meta=False):
            self.predictor.begin()
            ((_, answer),) = [*self.predictor.push(clip), *self.predictor.flush()]
            masks.append(answer["mask"][0].T)
        return torch.stack(masks)
