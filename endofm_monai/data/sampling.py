# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from endofm_monai.data.dataset import ClipDataset
from endofm_monai.data.readers.base import ClipInfo, ClipReadError, join_frames, split_frames
from endofm_monai.data.readers.open_clip import open_clip
from endofm_monai.data.readers.paths import frame_images

__all__ = [
    "AllFrames",
    "CenterFrames",
    "FrameSampler",
    "RandomWindow",
    "SupportSampler",
    "UniformFrames",
    "VideoWindows",
    "WindowPlan",
    "chunk_clips",
    "chunk_frames",
    "cover_videos",
    "linspace_indices",
    "sample_videos",
]

FRAME_RATE = 30  # frames per second that a sampling rate refers to
Random = np.random.RandomState | np.random.Generator


def linspace_indices(first: float, last: float, count: int, frames: int) -> torch.Tensor:
    """Give ``count`` evenly spaced frame indices from ``first`` to ``last``, inside a clip of ``frames`` frames.

    The indices are ``trunc(clamp(linspace(first, last, count), 0, frames - 1))`` in float32, as in the published
    temporal sampling, so the same frames are chosen. A span that is shorter than ``count`` repeats frames; ``first``
    and ``last`` (included) may lie outside the clip.

    Example::

        linspace_indices(0, 149, 4, frames=150)  # tensor([  0,  49,  99, 149])
    """
    return torch.linspace(first, last, count, dtype=torch.float32).clamp(0, frames - 1).to(torch.int64)


class FrameSampler(ABC):
    """Says which frames of a clip are read; see :class:`endofm_monai.transforms.LoadClipd`."""

    @abstractmethod
    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Choose frames of a clip.

        Args:
            info: what is known about the clip.
            item: the datalist item that the clip is of.
            random: where random numbers are drawn from.

        Returns:
            int64 indices ``(T,)``, in any order and with repetitions.
        """


class AllFrames(FrameSampler):
    """Every frame."""

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """All indices in order."""
        return torch.arange(info.frames)


@dataclass(frozen=True)
class UniformFrames(FrameSampler):
    """``num_frames`` frames, evenly spread from the first to the last; of a shorter clip some repeat."""

    num_frames: int

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"{type(self).__name__}: `num_frames` must be positive, found {self.num_frames}.")

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Always the same indices."""
        return linspace_indices(0, info.frames - 1, self.num_frames, info.frames)


class CenterFrames(UniformFrames):
    """``num_frames`` consecutive frames from the middle; of a shorter clip the last one repeats."""

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Always the same indices."""
        first = max(0, (info.frames - self.num_frames) // 2)
        return torch.arange(first, first + self.num_frames).clamp(max=info.frames - 1)


@dataclass(frozen=True)
class WindowPlan(FrameSampler):
    """Some frames, evenly spread over a window of fixed duration.

    The window lasts ``num_frames * sampling_rate / 30`` seconds, whatever the frame rate of the video: 8.5 s for the
    published 8 frames at rate 32. Of a video that is shorter the clip is spread over all of it. The item says which
    window: the one of number ``window`` of ``num_windows`` that are evenly spread, by default 0 of 1.

    Args:
        num_frames: frames T of a clip.
        sampling_rate: frames at 30 per second that one frame stands for.
    """

    num_frames: int = 8
    sampling_rate: float = 32

    def __post_init__(self) -> None:
        if self.num_frames < 1 or not self.sampling_rate > 0:
            raise ValueError(
                f"`num_frames` and `sampling_rate` must be positive, found {self.num_frames} and {self.sampling_rate}."
            )

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Indices of the item's window."""
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

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Indices of another window at each call."""
        return self.indices(info, random.randint(info.frames - self.length(info) + 1))


class SupportSampler(FrameSampler):
    """A key frame, which the item names by ``frame_index``, and frames that support it: one rule for every use.

    Offline supports are drawn, without replacement, half from the ``window`` frames before and half from those after
    the frame; where one side has too few, the other gives more. Online all come before it. A frame that has no other in
    reach is its own support, since a detector has never seen a frame without one.

    Args:
        num_supports: number of supports; fewer where not so many frames are in reach.
        window: their largest distance in frames.
        mode: ``"offline"`` or ``"online"``.
        seed: seed of the draws.
    """

    def __init__(self, num_supports: int = 10, window: int = 9, mode: str = "offline", seed: int = 0) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f'`mode` must be "offline" or "online", but got {mode!r}.')
        self.num_supports = num_supports
        self.window = window
        self.mode = mode
        self.seed = seed

    def __call__(self, info: ClipInfo, item: Mapping[Any, Any], random: np.random.RandomState) -> torch.Tensor:
        """Indices ``(1 + num_supports,)``, the key frame first; of a short video supports repeat."""
        key = item["frame_index"]
        return torch.tensor([key, *islice(cycle(self.supports(key, info.frames, random)), self.num_supports)])

    def supports(self, index: int, frames: int, random: Random | None = None) -> list[int]:
        """Numbers of the frames that support frame ``index``.

        Args:
            index: the frame.
            frames: number of frames of the video, or so far of the stream.
            random: where random numbers are drawn from; by default what the seed and ``index`` alone decide.
        """
        random = random or np.random.default_rng([self.seed, index])
        last = min(index + self.window, frames - 1) if self.mode == "offline" else index
        before, after = range(max(index - self.window, 0), index), range(index + 1, last + 1)
        share = min(len(before), max(self.num_supports // 2, self.num_supports - len(after)))
        drawn = [*random.permutation(before)[:share], *random.permutation(after)[: self.num_supports - share]]
        return [int(frame) for frame in drawn] or [index]


def sample_videos(items: Sequence[dict[str, Any]], num_windows: int = 1, num_crops: int = 1) -> list[dict[str, Any]]:
    """Turn each video into a fixed number of clips: windows in time, and squares of each.

    Args:
        items: items with ``image``.
        num_windows: windows of a video, evenly spread; a single one begins with the video.
        num_crops: squares of a window; see :class:`endofm_monai.transforms.ScaleCropClip`.

    Returns:
        for each item ``num_windows * num_crops`` copies, one after the other, that say which clip they are by
        ``window``, ``num_windows``, ``crop`` and ``num_crops``.

    Raises:
        ValueError: when a number is not positive.
    """
    if num_windows < 1 or num_crops < 1:
        raise ValueError(f"`num_windows` and `num_crops` must be positive, found {num_windows} and {num_crops}.")
    return [
        {**item, "window": window, "num_windows": num_windows, "crop": crop, "num_crops": num_crops}
        for item in items
        for window in range(num_windows)
        for crop in range(num_crops)
    ]


def cover_videos(
    items: Sequence[dict[str, Any]],
    num_frames: int = 8,
    sampling_rate: float = 32,
    overlap: float = 0.0,
    num_crops: int = 1,
) -> list[dict[str, Any]]:
    """Turn each video into as many windows as cover it from its beginning to its end.

    For that each video is opened once, and nothing is decoded but its first frame. A video that cannot be opened gets
    one window, so that what reads the windows will report it.

    Args:
        items: items with ``image``.
        num_frames: see :class:`WindowPlan`.
        sampling_rate: see :class:`WindowPlan`.
        overlap: smallest share of a window that the next one repeats, in [0, 1).
        num_crops: squares of a window.

    Returns:
        items as of :func:`sample_videos`.

    Raises:
        ValueError: when a number is out of its range.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"`overlap` must be in [0, 1), found {overlap}.")
    plan = WindowPlan(num_frames, sampling_rate)
    windows = []
    for item in tqdm(items, "Looking into the videos", unit="video", disable=None):
        try:
            with open_clip(item["image"]) as reader:
                count = plan.count(reader.probe(), overlap)
        except ClipReadError:
            count = 1
        windows += sample_videos([item], count, num_crops)
    return windows


class VideoWindows(ClipDataset):
    """Windows of videos, where the message about one that cannot be read starts with the ``video`` of its item."""

    def __getitem__(self, key: Any) -> Any:
        """Load one window; see :class:`ClipDataset`."""
        item = super().__getitem__(key)
        return {"broken": f"{self.data[key]['video']}: {item['broken']}"} if "broken" in item else item


def chunk_frames(frames: int, chunk: int, window: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a clip into chunks whose results, put together, are those of the whole clip.

    A :class:`endofm_monai.inferers.TemporalWindowInferer` averages windows that overlap. So a chunk begins before the
    frames that it is made for, its core, and goes on after them, such that it holds all windows with a frame of the
    core, at the places where the whole clip has them.

    Args:
        frames: number of frames of the clip.
        chunk: largest number of frames of a chunk (but for less than ``stride`` frames at the end).
        window: frames of a window.
        stride: frames from one window to the next.

    Yields:
        first frame of the chunk and the one after its last, first frame of the core and the one after its last.

    Raises:
        ValueError: when ``window`` is no multiple of ``stride``, or ``chunk`` less than two windows.
    """
    if window % stride or chunk < 2 * window:
        raise ValueError(
            f"`window` must be a multiple of `stride` and `chunk` at least two windows, but got window={window}, "
            f"stride={stride}, chunk={chunk}."
        )
    margin = window - stride
    length = window + (chunk - window) // stride * stride
    done = 0
    while done < frames:
        start = max(0, min(done - margin, (frames - window) // stride * stride))
        stop = start + length
        if stop > frames - stride:  # the clip's last window is shifted to its end
            stop = frames
        core_stop = frames if stop == frames else stop - margin
        yield start, stop, done, core_stop
        done = core_stop


def chunk_clips(
    data: Sequence[dict[str, Any]], chunk: int = 32, window: int = 8, stride: int = 4, image_key: str = "image"
) -> list[dict[str, Any]]:
    """Cut the clips of a datalist into chunks, so that a video of any length is handled in bounded memory.

    Args:
        data: items, for example of :func:`endofm_monai.data.load_datalist`.
        chunk: see :func:`chunk_frames`, likewise the next two.
        window: frames of a window.
        stride: frames from one window to the next.
        image_key: key of the clip.

    Returns:
        one item a chunk, in order: the clip's item with the frames of the chunk as ``image_key``, the clip itself as
        ``source``, the clip's ``num_frames`` and ``fps``, and ``core``: the frames ``(first, stop)`` of the clip
        that the chunk is for, and ``(first, stop)`` of the same within the chunk. A clip that cannot be opened stays
        whole, to be reported where it is read.
    """
    chunks = []
    for item in data:
        clip = item[image_key]
        if isinstance(clip, (str, os.PathLike)) and os.path.isdir(clip):
            clip = [str(path) for path in frame_images(clip)]
        try:
            with open_clip(clip) as reader:
                info = reader.probe()
        except ClipReadError:
            chunks.append({**item, "source": clip, "num_frames": 0, "fps": 0.0, "core": (0, 0, 0, 0)})
            continue
        for start, stop, first, end in chunk_frames(info.frames, chunk, window, stride):
            chunks.append(
                {
                    **item,
                    image_key: _part(clip, start, stop),
                    "source": clip,
                    "num_frames": info.frames,
                    "fps": info.fps,
                    "core": (first, end, first - start, end - start),
                }
            )
    return chunks


def _part(clip: Any, start: int, stop: int) -> Any:
    if not isinstance(clip, (str, os.PathLike)):
        return clip[start:stop]
    if (start, stop) == (0, 1):  # a single image stays one
        return clip
    whole, frames = split_frames(os.fspath(clip))
    offset = frames[0] if frames is not None else 0
    return join_frames(whole, offset + start, offset + stop - 1)
