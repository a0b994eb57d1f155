# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from monai.utils import TransformBackends

from endofm_monai.data import ClipInfo, ClipReader, WindowPlan, clip_metadata, open_clip
from endofm_monai.transforms.clip_transform import ClipTransformd, RandClipTransformd

__all__ = ["LoadWindow", "LoadWindowd", "RandLoadClip", "RandLoadClipd"]


class RandLoadClip(Randomizable, Transform):
    """Read the frames of a window at a random place of a video, as published for training.

    Args:
        num_frames: see :class:`WindowPlan`, likewise the next two.
        sampling_rate: frames at 30 per second that one frame stands for.
        reference_short_videos: repeat the last frame of a short video.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.

    Example::

        clip = RandLoadClip(num_frames=8, sampling_rate=32).set_random_state(seed=0)("video.mp4")  # (3, 8, H, W)
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        num_frames: int = 8,
        sampling_rate: float = 32,
        reference_short_videos: bool = False,
        **reader_options: Any,
    ) -> None:
        self.plan = WindowPlan(num_frames, sampling_rate, reference_short_videos)
        self.reader_options = reader_options

    def __call__(self, source: Any) -> MetaTensor:
        """Read the frames.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.

        Returns:
            uint8 RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`.

        Raises:
            ClipReadError: when the video cannot be read.
        """
        with open_clip(source, **self.reader_options) as reader:
            self.randomize(reader.probe())
            return _read(reader, self.plan.indices(reader.probe(), self.start))

    def randomize(self, data: ClipInfo) -> None:
        """Draw where the window begins in a video."""
        self.start = self.R.randint(data.frames - self.plan.length(data) + 1)


class RandLoadClipd(RandClipTransformd):
    """Dictionary version of :class:`RandLoadClip`."""

    array_transform = RandLoadClip


class LoadWindow(Transform):
    """Read the frames of one of several windows that are evenly spread over a video, always the same ones.

    The video of the last call stays open, so that the windows of a long one can be read one after the other.

    Args:
        num_frames: see :class:`WindowPlan`, likewise the next two.
        sampling_rate: frames at 30 per second that one frame stands for.
        reference_short_videos: repeat the last frame of a short video.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        num_frames: int = 8,
        sampling_rate: float = 32,
        reference_short_videos: bool = False,
        **reader_options: Any,
    ) -> None:
        self.plan = WindowPlan(num_frames, sampling_rate, reference_short_videos)
        self.reader_options = reader_options
        self._source: Any = None
        self._reader: ClipReader | None = None

    def __call__(self, source: Any, window: int = 0, num_windows: int = 1) -> MetaTensor:
        """Read the frames of a window.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.
            window: number of the window, from 0.
            num_windows: number of windows; the first begins with the video, the last ends with it.

        Returns:
            uint8 RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`.

        Raises:
            ClipReadError: when the video cannot be read.
        """
        reader = self._open(source)
        try:
            info = reader.probe()
            return _read(reader, self.plan.indices(info, self.plan.start(info, window, num_windows)))
        finally:
            if window == num_windows - 1:
                self.close()

    def close(self) -> None:
        """Close the video that is still open."""
        if self._reader is not None:
            self._reader.close()
        self._source = self._reader = None

    def _open(self, source: Any) -> ClipReader:
        if self._reader is None or source != self._source:
            self.close()
            self._reader = open_clip(source, **self.reader_options)
            self._source = source
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_reader": None}  # an open video cannot go to another process


class LoadWindowd(ClipTransformd):
    """Dictionary version of :class:`LoadWindow`; the item tells ``window`` and ``num_windows``, by default 0 and 1."""

    array_transform = LoadWindow

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the clips at ``keys``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d.get("window", 0), d.get("num_windows", 1))
        return d


def _read(reader: ClipReader, indices: torch.Tensor) -> MetaTensor:
    return MetaTensor(reader.read(indices), meta=clip_metadata(reader, indices))
