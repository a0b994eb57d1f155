# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import gc
import os
from contextlib import suppress
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

__all__ = ["missing_bytes", "open_container", "video_stream"]

# Formats that hold their frames themselves. Playlists and image patterns (HLS, DASH, ffconcat, SDP, IMF, image2, ...),
# by whatever name, would have FFmpeg read files that nobody named.
_FORMATS = (
    "mov matroska avi mpeg mpegts asf asf_o flv mxf gxf ogg nut rm wtv dv ivf swf gif apng yuv4mpegpipe mpegvideo m4v "
    "h264 hevc vvc vc1 av1 obu dirac mjpeg"
)
_OPTIONS = {"format_whitelist": ",".join(_FORMATS.split()), "protocol_whitelist": "file"}
# A forked worker has none of the threads of FFmpeg, but would wait for them where it collects a codec left behind.
os.register_at_fork(after_in_child=gc.freeze)


def open_container(path: str, file: BinaryIO | None = None) -> InputContainer:
    """Open a video file, or a binary ``file`` in its place, which leads to no other file."""
    if file:
        file.seek(0)
    return av.open(file or os.path.abspath(path), metadata_errors="replace", options=_OPTIONS)


def video_stream(container: InputContainer) -> VideoStream | None:
    """Choose the video of a file: the first one that is no picture, such as a cover; ``None`` where there is none."""
    streams: list[Any] = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    counted = any(stream.frames for stream in streams)
    best: Any = None if counted else container.streams.best("video")  # the one with several frames
    return best if best in streams else max(streams, key=lambda stream: stream.frames != 1, default=None)


def missing_bytes(path: str, file: BinaryIO | None = None) -> int:
    """Give how much shorter an AVI or Matroska file is than its outermost element says: 0 for a file that is whole.

    What the header of such a file says on its length is only wrong then. (Other containers state no size, or an index.)
    """
    if file:
        file.seek(0)
        head, size = file.read(4096), file.seek(0, os.SEEK_END)
    else:
        with open(path, "rb") as opened:
            head, size = opened.read(4096), os.fstat(opened.fileno()).st_size
    end = 0
    if head.startswith(b"RIFF"):
        end = 8 + int.from_bytes(head[4:8], "little")
    elif head.startswith(b"\x1a\x45\xdf\xa3") and (place := head.find(b"\x18\x53\x80\x67") + 4) > 4:
        with suppress(IndexError):
            digits = 7 * (9 - head[place].bit_length())  # the first bit that is set tells how many bytes the size has
            start = place + digits // 7
            length = int.from_bytes(head[place:start], "big") & ((1 << digits) - 1)
            end = start + length if length < (1 << digits) - 1 else 0  # all bits set: unknown, as while recording
    return max(0, end - size)
