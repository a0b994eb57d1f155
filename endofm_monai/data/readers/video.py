# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import PictureType

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.readers.packets import PacketTable, RecentCache, file_key

__all__ = ["VideoReader"]

# Codecs in which a frame that is marked as no reference is needed by no other frame. (In H.265 the mark only holds
# within a temporal layer.)
_SKIPPABLE_CODECS = ("h264", "mpeg1video", "mpeg2video", "mpeg4")
_INTRA = (PictureType.I, PictureType.NONE)
# Reading this many packets without decoding them takes about as long as a seek.
_SEEK_DISTANCE = 16
# Containers round their duration, and the last frame often has none of its own.
_DURATION_TOLERANCE = 0.5  # seconds
# Packets, about 40 bytes each: with clips that are parts of long videos, workers open the same files again and again.
_PROBED: RecentCache[tuple[PacketTable, np.ndarray, ClipInfo]] = RecentCache(limit=2_500_000)


class VideoReader(ClipReader):
    """Reads frames from a video file with PyAV: any container and codec that FFmpeg decodes.

    One pass over the packets (a few microseconds each, nothing is decoded) tells the exact number and order of the
    frames, with variable frame rate, edit lists, and containers that state no frame count; a file that is opened again
    unchanged needs none. Reading then decodes the groups of pictures that hold a wanted frame, each up to its last
    wanted one, without frames on which none depends (where the codec marks them).

    Frames are counted, turned and mirrored as FFmpeg shows them. The color matrix and range are those that the file
    states; more than 8 bits are reduced to 8, and alpha is dropped. Where a file is cut off, ``probe`` counts the
    frames that it should hold.

    Args:
        path: the video file.
        file: a binary file to read the video from instead; ``path`` is then only its name.
        threads: decoding threads; 0 lets FFmpeg choose. More than one slows down short reads, and in a
            ``DataLoader`` the workers already use the processors.
    """

    def __init__(self, path: str | os.PathLike, *, file: BinaryIO | None = None, threads: int = 1) -> None:
        super().__init__(os.fspath(path))
        self._file = file
        self._threads = threads
        self._seekable = True
        self._display = np.eye(3, dtype=np.int32).ravel()  # the display matrix, row by row
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        try:
            if self._file:
                self._file.seek(0)
            self._key = None if self._file else file_key(self.path)
            self._container = av.open(self._file or os.path.abspath(self.path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise ClipReadError(f"{self.path}: is not a readable video ({error.strerror})") from error
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            self._container.close()
            raise ClipReadError(f"{self.path}: holds no video stream")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise ClipReadError(f"{self.path}: the codec of its video stream is not supported")
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
        known = _PROBED.get(self._key) if self._key else None
        if known is not None:
            self._table, self._display, info = known
            return info
        info = self._pass_over()
        if self._key:
            _PROBED.put(self._key, (self._table, self._display, info), self._table.count)
        return info

    def _pass_over(self) -> ClipInfo:
        self._table = table = PacketTable(self._packets, reorders=bool(self._stream.codec_context.has_b_frames))
        self._position = table.count
        first, frame = next(self._show([(0, table.count)]), (0, None))
        if frame is None:
            raise ClipReadError(f"{self.path}: none of its {table.count} frames can be decoded")
        if table.ordered:
            table.hide(first)  # frames that lean on what was cut off before the beginning
        if "DISPLAYMATRIX" in frame.side_data:
            self._display = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)
        height, width = self._to_rgb(frame).shape[:2]

        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        duration = float((table.end - int(table.times[table.shown[0]])) * self._stream.time_base)
        # Some containers count their duration from the first frame, some from time 0.
        lost = self._stated_duration() - max(duration, float(table.end * self._stream.time_base))
        frames = len(table.shown) + max(
            len(self._stream.index_entries) - table.count,  # complete in MP4 and MOV, elsewhere at most all keyframes
            round(lost * rate) if lost > _DURATION_TOLERANCE else 0,
            0,
        )
        duration = max(duration, duration + lost) or frames / rate
        if abs(duration * rate - frames) > 1.5:  # variable frame rate, or a wrong header
            rate = frames / duration
        return ClipInfo(frames=frames, fps=rate, height=height, width=width, duration=frames / rate)

    def _stated_duration(self) -> float:
        """Length of the video by the header, in seconds; 0 where it is not stated."""
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / av.time_base
        return 0.0

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        table, missing = self._table, set(wanted)
        if table.ordered:
            positions = {int(table.shown[index]) for index in wanted if index < len(table.shown)}
            for index, frame in self._show(table.spans(positions), needed=positions):
                if index in missing:
                    missing.remove(index)
                    yield index, self._to_rgb(frame)
        if not missing:
            return
        # Where the presentation order is not stated, frames can only be counted as they come out. And some streams do
        # not decode from what they call keyframes: they, too, are decoded from the beginning.
        readable = 0
        for index, frame in self._show([(0, table.count)]):
            readable += 1
            if index in missing:
                missing.remove(index)
                yield index, self._to_rgb(frame)
                if not missing:
                    return
        raise ClipReadError(
            f"{self.path}: frame {min(missing)} cannot be decoded: {readable} of {self.probe().frames} frames are "
            "readable, the file is damaged or cut off"
        )

    def _show(self, spans: list[tuple[int, int]], needed: Collection[int] = ()) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode spans of packets, each from a keyframe on, and give each frame that is shown with its index.

        Those at positions that are not ``needed`` may be left out; all are needed by default.
        """
        shown = 0
        for start, stop in spans:
            self._go_to(start)
            codec = self._stream.codec_context
            codec.flush_buffers()
            skippable = bool(needed) and codec.codec.name in _SKIPPABLE_CODECS
            # A stream with intra refresh has "keyframes" that are no pictures of their own: do not decode from there.
            trusted = not needed or self._table.index(start) is None
            for packet in chain(self._read_packets(stop), [None]):  # None: no more, give what is held back
                if packet is not None:
                    codec.skip_frame = "NONREF" if skippable and packet.pts not in needed else "DEFAULT"
                try:
                    frames = codec.decode(packet)
                except av.FFmpegError:  # as FFmpeg does: go on with the next packet
                    continue
                for frame in frames:
                    index = self._table.index(frame.pts) if self._table.ordered else shown
                    shown += 1
                    trusted |= frame.pts == start and frame.pict_type in _INTRA
                    if trusted and index is not None and frame.pts not in self._table.damaged:
                        yield index, frame

    def _read_packets(self, stop: int) -> Iterator[av.Packet]:
        """Read the packets from here up to position ``stop``.

        Each carries its position as its time, and hands it on to the frame that is decoded from it.
        """
        while self._position < stop:
            packet = next(self._packets, None)
            if packet is None:
                return
            packet.pts = self._position
            self._position += 1
            yield packet

    def _go_to(self, position: int) -> None:
        """Make the packet at ``position`` the next one, by a seek where that is quicker."""
        if position < self._position or (self._seekable and position > self._position + _SEEK_DISTANCE):
            self._seek(position)
        for _ in self._read_packets(position):
            pass

    def _seek(self, position: int) -> None:
        """Go to the packet at ``position``, or to one before it."""
        if self._seekable:
            try:
                self._container.seek(int(self._table.times[position]), stream=self._stream)
                self._packets = self._demux()
                packet = next(self._packets)
                reached = self._table.position(packet)
            except (av.FFmpegError, StopIteration):
                reached = None
            if reached is not None and reached <= position:
                self._packets = chain([packet], self._packets)
                self._position = reached
                return
            self._seekable = False  # as in MPEG program and transport streams, which have no index
        self._container.close()
        self._open()

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a decoded frame to uint8 RGB ``(H, W, 3)``, turned and mirrored as the file asks."""
        # FFmpeg's default, a thread a processor, takes several times longer for frames of this size.
        image = frame.to_ndarray(format="rgb24", threads=1)
        # Column x of row y is shown in column a*x + c*y of row b*x + d*y, but for a shift.
        a, b, _, c, d = self._display[:5]
        across, down = a, d
        if abs(b) > abs(a):
            image, across, down = image.swapaxes(0, 1), c, b
        return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
