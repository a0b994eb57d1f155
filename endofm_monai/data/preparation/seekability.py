# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np

from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.source_video import SourceVideo
from endofm_monai.data.video_reader import VideoReader

__all__ = ["choose_mode", "why_slow"]

_MAX_KEYFRAME_DISTANCE = 300  # frames: 10 s at 30 a second; encoders' own default is 250


def choose_mode(video: SourceVideo) -> tuple[str, str]:
    """Say whether a video can be left as it is, with an index of its clips, or had better be encoded.

    Args:
        video: the video.

    Returns:
        ``"index"`` or ``"encode"``, and why.

    Raises:
        ClipReadError: when it cannot be read.
    """
    if video.frames:
        return "index", "single images"
    with open_clip(video.files[0], fps=video.fps) as reader:
        if not isinstance(reader, VideoReader):
            return "index", "its frames are stored one by one"
        reason = why_slow(reader)
        distance = _keyframe_distance(reader)
    if reason is None:
        return "index", f"seekable, a keyframe at least every {distance} frames"
    if video.frame_labels:
        return "index", f"labels belong to single frames, although {reason}"
    return "encode", reason


def why_slow(reader: VideoReader) -> str | None:
    """Say why a frame in the middle of a video cannot be reached quickly; ``None`` where it can.

    It takes the pass over the packets that ``probe`` needs anyway, one seek and one decoded frame.

    Args:
        reader: the video's reader.

    Raises:
        ClipReadError: when it is no video.
    """
    reader.probe()
    table = reader._table
    if not table.ordered:
        return "the file does not state the order of its frames"
    distance = _keyframe_distance(reader)
    if distance > _MAX_KEYFRAME_DISTANCE:
        return f"keyframes are up to {distance} frames apart"
    if not len(table.keyframes):
        return "it has no keyframe"
    last = int(table.keyframes[-1])
    reader._seek(last)
    if not reader._seekable:
        return "its container has no index to seek by"
    if last and next(reader._show([(last, last + 1)], needed={last}), None) is None:
        return "its keyframes are no pictures of their own"
    return None


def _keyframe_distance(reader: VideoReader) -> int:
    """Give the longest way from a keyframe to the next one, or to the end, in packets."""
    table = reader._table
    return int(np.diff([*table.keyframes, table.count], prepend=0).max()) if table.count else 0
