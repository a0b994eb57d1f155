# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

__all__ = ["clip_ranges"]


def clip_ranges(frames: int, length: int | None, remainder: str = "merge") -> list[tuple[int, int]]:
    """Cut a video into clips of equal length.

    A video that is shorter than a clip is one clip, whatever the policy.

    Args:
        frames: number of frames of the video, at least 1.
        length: number of frames a clip, at least 1; ``None`` for one clip of the whole video.
        remainder: what happens to the frames that are left over: ``"merge"`` adds them to the last clip, as for the
            published clips, which so have up to ``2 * length - 1`` frames; ``"keep"`` makes a shorter clip of them;
            ``"drop"`` leaves them out.

    Returns:
        the first and last frame of each clip, both included.

    Raises:
        ValueError: when ``length`` is not positive or ``remainder`` is none of the three.

    Example::

        clip_ranges(400, 150)  # [(0, 149), (150, 399)]
    """
    if remainder not in ("merge", "keep", "drop"):
        raise ValueError(f'`remainder` must be "merge", "keep" or "drop", found "{remainder}"')
    if length is None:
        return [(0, frames - 1)]
    if length < 1:
        raise ValueError(f"a clip must have at least 1 frame, found {length}")
    starts = list(range(0, max(frames - length, 0) + 1, length))
    ranges = [(start, min(start + length, frames) - 1) for start in starts]
    last = ranges[-1][1]
    if remainder == "merge":
        ranges[-1] = ranges[-1][0], frames - 1
    elif remainder == "keep" and last < frames - 1:
        ranges.append((last + 1, frames - 1))
    return ranges
