# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

import av
import numpy as np

from endofm_monai.data.clip_reader import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.packet_table import PacketTable

__all__ = ["VideoReader"]

# Codecs in which a frame that is marked as no reference is needed by no other frame. (In H.265 the mark only holds
# within a temporal layer.)
_SKIPPABLE_CODECS = ("h264", "mpeg1video", "mpeg2video", "mpeg4")
# Reading this many packets without decoding them takes about as long as a seek.
_SEEK_DISTANCE = 64
# Containers round their duration, and the last frame often has none of its own.
_DURATION_TOLERANCE = 1.0  # seconds


class VideoReader(ClipReader):
    """Reads frames from a video file with PyAV: any container and codec that FFmpeg decodes.

    One pass over the packets (a few microseconds each, nothing is decoded) tells the exact number and order of the
    frames, with variable frame rate, edit lists, and containers that state no frame count. Reading then decodes only
    the groups of pictures that hold a wanted frame, in each one stops at the last wanted frame, leaves out frames on
    which no wanted one depends (where the codec marks them), and converts only wanted frames to RGB.

    Frames are counted in presentation order, as FFmpeg shows them when it decodes the whole file. The color matrix and
    range are those that the file states; more than 8 bits are reduced to 8, and alpha is dropped. Frames are turned
    and mirrored as the file asks. Where a file is cut off, ``probe`` counts the frames that it should hold.

    Args:
        path: the video file.
        threads: decoding threads; 0 lets FFmpeg choose. More than one slows down short reads, and in a
            ``DataLoader`` the workers already use the processors.

    Raises:
        ClipReadError: when the file does not exist, is no video, or holds no video stream.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1) -> None:
        super().__init__(os.fspath(path))
        self._threads = threads
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        try:
            # The whitelist keeps playlists and the like, disguised as videos, off the network.
            self._container = av.open(
                os.path.abspath(self.path), options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError) as error:
            raise ClipReadError(f"{self.path}: is not a readable video ({error.strerror})") from error
        streams = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            self._container.close()
            raise ClipReadError(f"{self.path}: holds no video stream")
        self._stream = streams[0]
        self._stream.codec_context.thread_count = self._threads
        self._stream.codec_context.thread_type = "AUTO"
        self._packets = self._demux()
        self._position = 0  # of the packet that comes next

    def _demux(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:  # damaged from here on: what follows is lost, and missed when it is read
            return

    def _probe(self) -> ClipInfo:
        self._table = table = PacketTable(self._packets, reorders=bool(self._stream.codec_context.has_b_frames))
        self._position = table.count
        position, frame = next(self._show([(0, table.count)]), (0, None))
        if frame is None:
            raise ClipReadError(f"{self.path}: none of its {table.count} frames can be decoded")
        if table.ordered:  # frames at the beginning that lean on what was cut off before it are never shown
            table.shown = table.shown[table.shown.index(position) :]
        height, width = _to_rgb(frame).shape[:2]

        frames = len(table.shown)
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        duration = float((table.end - table.times[table.shown[0]]) * self._stream.time_base) or frames / rate
        if self._stated_duration() > duration + _DURATION_TOLERANCE:
            frames += round((self._stated_duration() - duration) * rate)
            duration = self._stated_duration()
        if abs(duration * rate - frames) > 1:  # variable frame rate, or a wrong header
            rate = frames / duration
        return ClipInfo(frames=frames, fps=rate, height=height, width=width, duration=duration)

    def _stated_duration(self) -> float:
        """Give the length of the video by the header, in seconds; 0 where it is not stated."""
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / av.time_base
        return 0.0

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        table, missing = self._table, set(wanted)
        if table.ordered:
            index_of = {position: index for index, position in enumerate(table.shown)}
            positions = {table.shown[index] for index in wanted if index < len(table.shown)}
            for position, frame in self._show(table.spans(sorted(positions)), positions):
                index = index_of.get(position)
                if index in missing:
                    missing.remove(index)
                    yield index, _to_rgb(frame)
        # Without presentation times frames can only be counted as they come out. And a stream may not decode from its
        # keyframes although it says so: then, too, it is decoded from the beginning.
        readable = 0
        if missing:
            for count, (position, frame) in enumerate(self._show([(0, table.count)])):
                index = index_of.get(position) if table.ordered else count
