# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from endofm_monai.data.clip_dataset import ClipDataset
from endofm_monai.data.clip_reader import ClipReadError
from endofm_monai.data.opener import open_clip
from endofm_monai.data.window_plan import WindowPlan

__all__ = ["VideoWindows", "cover_videos", "sample_videos"]


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
