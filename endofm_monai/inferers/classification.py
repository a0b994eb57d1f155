# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from endofm_monai.data import ClipInfo, ClipReader, WindowPlan
from endofm_monai.inferers.predictor import Answer, Answered, Predictor, binary_entropy, finite, opened, read_ahead
from endofm_monai.transforms import ScaleCropClip


@dataclass(eq=False, repr=False)
class ClassificationPredictor(Predictor):
    """Classifies windows of a video, and by these its frames: ``probabilities`` ``(K,)``.

    Offline the windows cover the video, evenly spread, and a frame has the mean of those that hold it; the length of
    the video must be known when it begins. Online a frame has the window that ends with it.
    """

    task = "classification"
    plan: WindowPlan  # which frames make a window
    crop: ScaleCropClip  # cuts squares of the network's size
    normalize: Callable[[torch.Tensor], torch.Tensor]  # brings the pixels of a clip to the network's range
    overlap: float = 0.0  # smallest share of a window that the next one repeats, in [0, 1)
    num_windows: int | None = None  # that `pieces` goes through, evenly spread; by default those that cover the video
    num_crops: int = 1  # squares of a window, whose mean counts
    batch_size: int = 4  # squares that are classified together
    multi_label: bool = False  # classes do not exclude each other

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"`overlap` must be in [0, 1), found {self.overlap}.")
        if self.num_crops < 1 or (self.num_windows is not None and self.num_windows < 1):
            numbers = f"{self.num_windows} and {self.num_crops}"
            raise ValueError(f"`num_windows` and `num_crops` must be positive, found {numbers}.")
        super().__post_init__()

    def pieces(self, reader: ClipReader) -> Iterator[tuple[torch.Tensor, Answer]]:
        """Go through the windows of a video, of which only the frames that make them are decoded.

        A video that is no longer than a window has one, as all would be alike.

        Yields:
            each window as uint8 ``(3, T, H, W)``, and what is said of it, with its ``frames``, int64 ``(T,)``.
        """
        info = reader.probe()
        _, windows = self._windows(info, self.num_windows if self.plan.length(info) < info.frames else 1)
        wanted = torch.cat(windows).unique()
        ends = [-1, *(int(window[-1]) for window in windows)]
        blocks = [wanted[(wanted > before) & (wanted <= end)].tolist() for before, end in pairwise(ends)]
        together = max(1, self.batch_size // self.num_crops)
        frames: dict[int, torch.Tensor] = {}
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        with opened(reader):  # names the clip in errors
            for window, block, read in zip(windows, blocks, read_ahead(reader, blocks), strict=True):
                frames = {number: frame for number, frame in frames.items() if number >= window[0]}
                frames.update(zip(block, read.unbind(1), strict=True))
                waiting.append((window, _clip(frames, window)))
                if len(waiting) == together or window is windows[-1]:
                    found = self._classify([self._cut(clip) for _, clip in waiting])
                    for (numbers, clip), probabilities in zip(waiting, found, strict=True):
                        yield clip, {"probabilities": probabilities, "frames": numbers}
                    waiting = []

    def begin(self, info: ClipInfo | None = None) -> None:
        """Forget all frames, and begin a video; offline its length must be known."""
        super().begin(info)
        self._starts: list[int] = []  # of the windows that cover the video
        self._left: list[torch.Tensor] = []  # frames of those that are to come
        self._length = 0  # of a window
        if info is not None and self.mode == "offline":
            self._starts, self._left = self._windows(info)
            self._length = self.plan.length(info)
        self._found: list[torch.Tensor] = []  # probabilities of the first windows, the others are left
        self._squares: dict[int, torch.Tensor] = {}  # (num_crops, 3, 1, S, S) of the last frames, online

    def uncertainty(self, answer: Answer) -> float:
        """The entropy of the classes, as a share of the largest there can be."""
        probabilities = answer["probabilities"]
        if self.multi_label:
            return float(binary_entropy(probabilities).mean())
        return float(torch.special.entr(probabilities).sum() / math.log(len(probabilities)))

    def _take(self, numbers: range, frames: torch.Tensor) -> Answered:
        if self.mode == "online":
            self._squares.update(zip(numbers, self._cut(frames).split(1, dim=2), strict=True))
            windows = [self._ending_with(number) for number in numbers]
            found = self._classify([torch.cat([self._squares[n] for n in w.tolist()], dim=2) for w in windows])
            oldest = int(self._ending_with(self._seen)[0])
            self._squares = {number: square for number, square in self._squares.items() if number >= oldest}
            return [(self._frames.pop(n), {"probabilities": p}) for n, p in zip(numbers, found, strict=True)]
        if self._info is None:
            raise ValueError("Offline the length of a video must be known: call `begin` with its `ClipInfo`.")
        return self._give([window for window in self._left if window[-1] < self._seen])

    def _finish(self) -> Answered:
        return self._give([window.clamp(max=self._seen - 1) for window in self._left if window[0] < self._seen])

    def _look_at(self, reader: ClipReader, index: int, info: ClipInfo) -> Answer:
        windows = self._left[self._holding(index)] if self.mode == "offline" else [self._ending_with(index)]
        numbers = torch.cat(windows).unique().tolist()
        frames = dict(zip(numbers, reader.read(numbers).unbind(1), strict=True))
        found = self._classify([self._cut(_clip(frames, window)) for window in windows])
        return {"probabilities": torch.stack(found).mean(dim=0)}

    def _windows(self, info: ClipInfo, count: int | None = None) -> tuple[list[int], list[torch.Tensor]]:
        """First frames of the windows of a video, and all their frames ``(T,)``."""
        count = count or self.plan.count(info, self.overlap)
        starts = [self.plan.start(info, number, count) for number in range(count)]
        return starts, [self.plan.indices(info, start) for start in starts]

    def _holding(self, number: int) -> slice:
        """The windows that hold a frame."""
        return slice(bisect_right(self._starts, number - self._length), bisect_right(self._starts, number))

    def _ending_with(self, number: int) -> torch.Tensor:
        """Frames ``(T,)`` of the window that ends with a frame."""
        fps = self._info.fps if self._info else 30.0  # of a stream of which nothing is known
        length = min(number + 1, self.plan.length(ClipInfo(2**31, fps, 0, 0, 0.0)))
        return number + 1 - length + self.plan.indices(ClipInfo(length, fps, 0, 0, 0.0), 0)

    def _give(self, ready: list[torch.Tensor]) -> Answered:
        """Classify windows, and answer for the frames that no other window holds."""
        self._found += self._classify([self._cut(_clip(self._frames, window)) for window in ready])
        self._left = self._left[len(ready) :]
        done = len(self._found)
        stop = self._starts[done] if done < len(self._starts) else self._seen
        numbers = [number for number in self._frames if number < stop]
        means = [torch.stack(self._found[self._holding(number)]).mean(dim=0) for number in numbers]
        return [(self._frames.pop(n), {"probabilities": mean}) for n, mean in zip(numbers, means, strict=True)]

    def _cut(self, clip: torch.Tensor) -> torch.Tensor:
        """Squares ``(num_crops, 3, T, S, S)`` of a clip."""
        clip = clip.to(self.device)
        return torch.stack([self.crop(clip, number, self.num_crops) for number in range(self.num_crops)])

    def _classify(self, clips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Probabilities ``(K,)`` of windows, each given as squares."""
        squares = [self.normalize(square) for clip in clips for square in clip]
        if not squares:
            return []
        batches = (squares[first : first + self.batch_size] for first in range(0, len(squares), self.batch_size))
        with self.computing():
            logits = torch.cat([finite(self.network(torch.stack(batch))).float() for batch in batches])
        found = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return list(found.unflatten(0, (-1, self.num_crops)).mean(dim=1).cpu())


def _clip(frames: dict[int, torch.Tensor], window: torch.Tensor) -> torch.Tensor:
    return torch.stack([frames[number] for number in window.tolist()], dim=1)
