# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from typing import Any

import numpy as np
import torch

from endofm_monai.data.readers.base import ClipInfo

__all__ = [
    "FrameSampler", "RandomWindow", "SupportSampler", "UniformFrames", "WindowPlan", "linspace_indices",
    "sample_videos",
]  # fmt: skip

FRAME_RATE = 30  # frames per second that a sampling rate refers to
Random = np.random.RandomState | np.random.Generator
Item = Mapping[Any, Any]
FrameSampler = Callable[[ClipInfo, Item, np.random.RandomState], torch.Tensor]
"""Says which frames of a clip are read, see :class:`endofm_monai.transforms.LoadClipd`: int64 indices ``(T,)``, in any
order and with repetitions, by what is known about the clip, the datalist item that it is of, and random numbers."""


def linspace_indices(first: float, last: float, count: int, frames: int) -> torch.Tensor:
    """Give ``count`` evenly spaced frame indices from ``first`` to ``last``, inside a clip of ``frames`` frames.

    The indices, int64, are computed in float32 and truncated, as in the published temporal sampling, so that the same
    frames are chosen: 0, 49, 99 and 149 are four from 0 to 149. A span that is shorter than ``count`` repeats frames;
    ``first`` and ``last`` (included) may lie outside the clip.
    """
    return torch.linspace(first, last, count, dtype=torch.float32).clamp(0, frames - 1).to(torch.int64)


@dataclass(frozen=True)
class UniformFrames:
    """``num_frames`` frames, evenly spread from the first to the last; of a shorter clip some repeat."""

    num_frames: int

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"{type(self).__name__}: `num_frames` must be positive, found {self.num_frames}.")

    def __call__(self, info: ClipInfo, item: Item, random: np.random.RandomState) -> torch.Tensor:
        return linspace_indices(0, info.frames - 1, self.num_frames, info.frames)


@dataclass(frozen=True)
class WindowPlan:
    """Some frames, evenly spread over a window of fixed duration.

    The window lasts ``num_frames * sampling_rate / 30`` seconds, whatever the frame rate of the video: 8.5 s for the
    published 8 frames at rate 32. Of a video that is shorter the clip is spread over all of it. The item says which
    window: the one of number ``window`` of ``num_windows`` that are evenly spread, by default 0 of 1.
    """

    num_frames: int = 8  # T of a clip
    sampling_rate: float = 32  # frames at 30 per second that one frame stands for

    def __post_init__(self) -> None:
        if self.num_frames < 1 or not self.sampling_rate > 0:
            found = f"{self.num_frames} and {self.sampling_rate}"
            raise ValueError(f"`num_frames` and `sampling_rate` must be positive, found {found}.")

    def __call__(self, info: ClipInfo, item: Item, random: np.random.RandomState) -> torch.Tensor:
        return self.indices(info, self.start(info, item.get("window", 0), item.get("num_windows", 1)))

    def span(self, info: ClipInfo) -> float:
        """Number of frames of the video that a clip is spread over."""
        return min(self.window_frames(info), info.frames)

    def window_frames(self, info: ClipInfo) -> float:
        """Number of frames in a window, if the video is long enough."""
        return self.num_frames * self.sampling_rate * info.fps / FRAME_RATE

    def length(self, info: ClipInfo) -> int:
        """Number of frames of the video in a window, at most all of them."""
        return max(1, min(info.frames, int(self.window_frames(info))))

    def indices(self, info: ClipInfo, start: int) -> torch.Tensor:
        """int64 indices ``(T,)`` of the frames of the window that begins at frame ``start``."""
        return start + linspace_indices(0, self.span(info) - 1, self.num_frames, info.frames - start)

    def start(self, info: ClipInfo, window: int, num_windows: int) -> int:
        """First frame of one of ``num_windows`` windows that are evenly spread; a single one begins with the video."""
        return round((info.frames - self.length(info)) * window / max(num_windows - 1, 1))

    def count(self, info: ClipInfo, overlap: float = 0.0) -> int:
        """Number of windows that cover the video, neighbors sharing at least the share ``overlap`` of a window."""
        length = self.length(info)
        return 1 + -(-(info.frames - length) // max(1, int(length * (1 - overlap))))


class RandomWindow(WindowPlan):
    """The frames of a window, see :class:`WindowPlan`, at a random place of the video, as published for training."""

    def __call__(self, info: ClipInfo, item: Item, random: np.random.RandomState) -> torch.Tensor:
        return self.indices(info, random.randint(info.frames - self.length(info) + 1))


@dataclass(frozen=True)
class SupportSampler:
    """A key frame, which the item names by ``frame_index``, and frames that support it: one rule for every use.

    Offline supports are drawn, without replacement, half from the ``window`` frames before and half from those after
    the frame; where one side has too few, the other gives more. Online all come before it.
    """

    num_supports: int = 10  # fewer where not so many frames are in reach
    window: int = 9  # their largest distance in frames
    mode: str = "offline"  # or "online"
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online"):
            raise ValueError(f'`mode` must be "offline" or "online", but got {self.mode!r}.')

    def __call__(self, info: ClipInfo, item: Item, random: np.random.RandomState) -> torch.Tensor:
        """Indices ``(1 + num_supports,)``, the key frame first; of a short video supports repeat."""
        key = item["frame_index"]
        return torch.tensor([key, *islice(cycle(self.supports(key, info.frames, random)), self.num_supports)])

    def supports(self, index: int, frames: int, random: Random | None = None) -> list[int]:
        """Numbers of the frames that support frame ``index`` of a video (or so far of a stream) of ``frames`` frames.

        They are drawn by ``random``; by default the seed and ``index`` alone decide.
        """
        random = random or np.random.default_rng([self.seed, index])
        last = min(index + self.window, frames - 1) if self.mode == "offline" else index
        before, after = range(max(index - self.window, 0), index), range(index + 1, last + 1)
        share = min(len(before), max(self.num_supports // 2, self.num_supports - len(after)))
        drawn = [*random.permutation(before)[:share], *random.permutation(after)[: self.num_supports - share]]
        return [int(frame) for frame in drawn] or [index]  # a detector has never seen a frame without support


def sample_videos(items: Sequence[dict[str, Any]], num_windows: int = 1, num_crops: int = 1) -> list[dict[str, Any]]:
    """Turn each video into a fixed number of clips: windows in time, and squares of each.

    Copies of an item, one after the other, say which clip they are by ``window`` and ``num_windows``, see
    :class:`WindowPlan`, and ``crop`` and ``num_crops``, see :class:`endofm_monai.transforms.ScaleCropClip`.
    """
    if num_windows < 1 or num_crops < 1:
        raise ValueError(f"`num_windows` and `num_crops` must be positive, found {num_windows} and {num_crops}.")
    return [
        {**item, "window": window, "num_windows": num_windows, "crop": crop, "num_crops": num_crops}
        for item, window, crop in product(items, range(num_windows), range(num_crops))
    ]
