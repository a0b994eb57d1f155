# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass

import torch

from endofm_monai.data.clip_reader import ClipInfo
from endofm_monai.data.frame_indices import linspace_indices

__all__ = ["WindowPlan"]

FRAME_RATE = 30  # frames per second that a sampling rate refers to


@dataclass(frozen=True)
class WindowPlan:
    """Which frames of a video make a clip: some, evenly spread over a window of fixed duration.

    The window lasts ``num_frames * sampling_rate / 30`` seconds, whatever the frame rate of the video: 8.5 s for the
    published 8 frames at rate 32. Of a video that is shorter the clip is spread over all of it.

    Args:
        num_frames: frames T of a clip.
        sampling_rate: frames at 30 per second that one frame stands for.
        reference_short_videos: spread the frames over the whole window even where the video is shorter, as the
            published code does: the last frame of the video is then repeated.

    Raises:
        ValueError: when a number is not positive.
    """

    num_frames: int = 8
    sampling_rate: float = 32
    reference_short_videos: bool = False

    def __post_init__(self) -> None:
        if self.num_frames < 1 or not self.sampling_rate > 0:
            raise ValueError(
                f"`num_frames` and `sampling_rate` must be positive, found {self.num_frames} and {self.sampling_rate}."
            )

    def length(self, info: ClipInfo) -> int:
        """Number of frames of the video in a window, at most all of them."""
        return max(1, min(info.frames, int(self._frames(info))))

    def indices(self, info: ClipInfo, start: int) -> torch.Tensor:
        """int64 indices ``(T,)`` of the frames of the window that begins at frame ``start``."""
        span = self._frames(info) if self.reference_short_videos else min(self._frames(info), info.frames)
        return start + linspace_indices(0, span - 1, self.num_frames, info.frames - start)

    def start(self, info: ClipInfo, window: int, num_windows: int) -> int:
        """First frame of one of ``num_windows`` windows that are evenly spread; a single one begins with the video."""
        return round((info.frames - self.length(info)) * window / max(num_windows - 1, 1))

    def count(self, info: ClipInfo, overlap: float = 0.0) -> int:
        """Number of windows that cover the video, neighbors sharing at least the share ``overlap`` of a window."""
        length = self.length(info)
        return 1 + -(-(info.frames - length) // max(1, int(length * (1 - overlap))))

    def _frames(self, info: ClipInfo) -> float:
        return self.num_frames * self.sampling_rate * info.fps / FRAME_RATE
