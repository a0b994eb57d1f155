# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from endofm_monai.data.clip_files import frame_images
from endofm_monai.data.clip_reader import ClipReadError
from endofm_monai.data.frame_range import join_frames, split_frames
from endofm_monai.data.opener import open_clip

__all__ = ["chunk_clips", "chunk_frames"]


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
