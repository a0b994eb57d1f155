# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import io
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, BinaryIO

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from PIL import ExifTags, Image

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError, clip_read_errors
from endofm_monai.data.readers.container import (
    PacketTable,
    RecentCache,
    file_key,
    film_times,
    mean_step,
    open_container,
    stated_end,
    video_stream,
)
from endofm_monai.utils import PathLike

__all__ = ["VideoReader"]

# Codecs in which no other frame needs one that is marked as no reference. (In H.265 only within a temporal layer.)
_SKIPPABLE_CODECS = ("h264", "mpeg1video", "mpeg2video", "mpeg4")
# Streams without a container, which have no clock. Like AVI, they have no presentation times: FFmpeg invents some.
_BARE = ("mpegvideo", "m4v", "h264", "hevc", "vvc", "vc1", "obu", "dirac", "mjpeg")
_SEEK_DISTANCE = 16  # packets that are read, without decoding them, about as quickly as one seeks
_DURATION_TOLERANCE = 0.5  # seconds; containers round their duration, and the last frame often has none of its own
_RATES = (1e-3, 1e5)  # frames per second that can be true
_SAMPLE = 32  # packets that show whether the others can be trusted
# Packets, about 60 bytes each: with clips that are parts of long videos, workers open the same files again and again.
_PROBED: RecentCache[tuple[PacketTable, np.ndarray, np.ndarray, ClipInfo]] = RecentCache(limit=2_500_000)


class VideoReader(ClipReader):
    """Reads frames from a video file with PyAV: any codec that FFmpeg decodes, in any container but playlists.

    One pass over the packets (a few microseconds each, nothing is decoded) tells the exact number and order of the
    frames, with variable frame rate, edit lists, and containers that state no frame count. Where what they say cannot
    be true (times that are missing, doubled or jump back, a field a packet), the file is decoded once instead. A file
    that is opened again unchanged needs neither. Reading then decodes the groups of pictures that hold a wanted frame,
    each up to its last wanted one, without frames on which none depends (where the codec marks them).

    Frames are counted, turned and mirrored as FFmpeg shows them. The color matrix and range are those that the file
    states; more than 8 bits are reduced to 8, and alpha is dropped. Where an MP4, Matroska or AVI file is cut off,
    ``probe`` counts the frames that it should hold. The frame rate is that of the film, whatever its clock does.

    Args:
        file: a binary file to read the video from instead; ``path`` is then only its name.
        fps: frames per second of a bare stream (as ``.h264``) that does not state them.
        threads: decoding threads; 0 lets FFmpeg choose. More than one slows down short reads, and in a
            ``DataLoader`` the workers already use the processors.
    """

    def __init__(self, path: PathLike, *, file: BinaryIO | None = None, fps: float = 25.0, threads: int = 1) -> None:
        super().__init__(os.fspath(path))
        self._file, self._fps, self._threads, self._seekable = file, fps, threads, True
        self._display = np.eye(3, dtype=np.int32).ravel()  # the display matrix, row by row
        self._open()

    def close(self) -> None:
        self._container.close()

    def times(self) -> np.ndarray:
        """Give the times of the frames as their clock states them; see :func:`film_times` for clocks that jump."""
        info = self.probe()
        lost = np.arange(1, info.frames - len(self._times) + 1) / info.fps
        return np.concatenate([self._times, self._times[-1] + lost])

    def keyframe_distance(self) -> int:
        """Give the longest way from a keyframe to the next one, or to the end, in packets."""
        self.probe()
        table = self._table
        return int(np.diff([*table.keyframes, table.count], prepend=0).max()) if table.count else 0

    def why_slow(self, max_distance: int) -> str:
        """Say why one seek, to a keyframe up to ``max_distance`` before, does not reach each frame; "" if it does."""
        distance, table = self.keyframe_distance(), self._table
        if not table.ordered:
            return "the file does not state the order of its frames"
        if distance > max_distance:
            return f"keyframes are up to {distance} frames apart"
        if not len(table.keyframes):
            return "it has no keyframe"
        last = int(table.keyframes[-1])
        self._seek(last)
        if not self._seekable:
            return "its container has no index to seek by"
        if last and next(self._show([(last, last + 1)], needed={last}), None) is None:
            return "its keyframes are no pictures of their own"
        return ""

    def _open(self) -> None:
        with clip_read_errors(self.path, "is not a readable video"):
            self._key = None if self._file else (*file_key(self.path), self._fps)
            self._container = open_container(self.path, self._file)
        try:
            self._stream = video_stream(self._container)
        except ValueError as error:
            self._container.close()
            raise ClipReadError(f"{self.path}: {error}") from error
        codec = self._stream.codec_context
        codec.thread_count, codec.thread_type = self._threads, "AUTO"
        codec.flags |= Flags.unaligned  # else what is cropped on the left may stay
        self._packets = self._demux()
        self._position = 0  # of the packet that comes next

    def _demux(self) -> Iterator[Any]:
        # Damaged from there on, which reading misses; or at its end, where PyAV lacks a stream that began late (sound).
        with suppress(av.FFmpegError, IndexError):
            while True:
                with suppress(av.BlockingIOError):  # nothing in the next 64 KiB of a transport stream: look behind them
                    yield from (packet for packet in self._container.demux(self._stream) if packet.size)
                    return

    def _probe(self) -> ClipInfo:
        if self._key and (known := _PROBED.get(self._key)):
            self._table, self._display, self._times, info = known
            self._seekable &= not self._table.sequential
            return info
        info = self._pass_over()
        if self._key:
            _PROBED.put(self._key, (self._table, self._display, self._times, info), self._table.count)
        return info

    def _pass_over(self) -> ClipInfo:
        codec = self._stream.codec_context
        self._table = table = PacketTable(self._packets, codec)
        self._position = table.count
        container = self._container.format.name
        if container.startswith("matroska") and table.end > stated_end(self.path, self._file) > 0:
            table.sequential = True  # after a seek in joined files, FFmpeg ends with the first of them
        self._seekable &= not table.sequential
        frame = next((frame for frame in self._show([(0, table.count)]) if table.index(frame.pts) is not None), None)
        if frame is None:
            raise ClipReadError(f"{self.path}: none of its {table.count} frames can be decoded")
        try:
            if "DISPLAYMATRIX" in frame.side_data:
                self._display = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)
        except ValueError:  # side data of a kind that PyAV does not know, as EXIF; the rotation alone tells no mirror
            self._go_to(frame.pts)
            turn, mirror, packet = np.deg2rad(frame.rotation), 1, next(self._read_packets(frame.pts + 1))
            with suppress(Exception), Image.open(io.BytesIO(bytes(packet))) as image:
                mirror = -1 if image.getexif().get(ExifTags.Base.Orientation) in (2, 4, 5, 7) else 1
            self._display = np.rint([np.cos(turn), -np.sin(turn), 0, mirror * np.sin(turn), mirror * np.cos(turn)])
        height, width = self._to_rgb(frame).shape[:2]
        first = frame.pts
        if (table.doubtful and container not in ("avi", *_BARE)) or (table.ordered and container in _BARE):
            table.ordered = self._agrees_with_sample(first)
        if table.ordered and frame.interlaced_frame and codec.name == "h264":
            steps = np.diff(table.clock())  # fields and frames may alternate
            table.ordered = steps.max(initial=0) <= 1.5 * steps.min(initial=np.inf) and self._agrees_with_sample(first)
        if table.ordered:
            # Frames that lean on what was cut off before the beginning. Others that do not decode are lost.
            begins = (table.index(position) for position in (first, *table.keyframes[:1]))
            table.hide(min(index for index in begins if index is not None))
        else:
            table.settle(frame.pts for frame in self._show([(0, table.count)]) if frame.pts is not None)
        return self._measure(height, width)

    def _agrees_with_sample(self, first: int) -> bool:
        """Say whether packets from ``first`` on give a frame each, in the table's order; two fields may share one."""
        stop = min(first + _SAMPLE, self._table.count)
        found = [self._table.index(frame.pts) for frame in self._show([(0, stop)])]
        known = [index for index in found if index is not None]
        return len(known) > 0.75 * (stop - first) and known == sorted(known)

    def _measure(self, height: int, width: int) -> ClipInfo:
        table, stream = self._table, self._stream
        is_bare, (low, high) = self._container.format.name in _BARE, _RATES
        stated = [stream.codec_context.framerate] if is_bare else [stream.average_rate, stream.guessed_rate]
        rates = [float(rate) for rate in stated if rate and low <= rate <= high] or [self._fps]
        unit, usual = float(stream.time_base or 1), 1 / rates[0]
        self._times = film_times(np.full(len(table.shown), np.nan) if is_bare else table.clock() * unit, usual)
        tail = table.tail * unit if table.ordered and not is_bare else 0.0
        count, step = len(self._times), mean_step(self._times, tail or usual)
        # The header's rate where it is true: containers round times, so that the mean of a constant one would be off.
        # Its mean counts the last frame, which often lasts otherwise: of a short film the usual rate is nearer.
        rate = min(rates, key=lambda rate: abs(step * rate - 1))
        rate = rate if abs(count * (step * rate - 1)) <= 1.5 else 1 / step
        # Some containers count their duration from the first frame, some from time 0.
        frames = count + self._lost_frames(max(float(self._times[-1]), float(table.times.max()) * unit) + tail, rate)
        aspect = float(stream.sample_aspect_ratio or 1)
        aspect = 1 / aspect if abs(self._display[1]) > abs(self._display[0]) else aspect  # shown after a quarter turn
        return ClipInfo(frames, rate, height, width, frames / rate, pixel_aspect=aspect)

    def _lost_frames(self, end: float, rate: float) -> int:
        """Give the number of frames that should follow after ``end``, in seconds, but are cut off."""
        # An index is complete in MP4 and MOV, though of no frame it may have an empty entry; elsewhere it tells little.
        index = self._stream.index_entries if "mp4" in self._container.format.name else ()
        whole = len(index) <= self._table.count
        lost = 0 if whole else max(0, sum(entry.size > 0 for entry in index) - self._table.count)
        if (missing := stated_end(self.path, self._file) - self._container.size) > 0:
            stated = (self._container.duration or 0) / av.time_base if len(self._container.streams) == 1 else 0.0
            if self._stream.duration is not None:
                stated = float(self._stream.duration * (self._stream.time_base or 1))
            held = 4 * missing * self._table.count // self._table.size  # by frames a quarter as large as the others
            lost = max(lost, round(min((stated - end) * rate, held)) if stated - end > _DURATION_TOLERANCE else 0)
        return lost

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        table, missing = self._table, set(wanted)
        positions = {int(table.shown[index]) for index in wanted if index < len(table.shown)}
        # Some streams do not decode from what they call keyframes: they are then decoded from the beginning.
        for spans, needed in ((table.spans(positions), positions), ([(0, table.count)], set[int]())):
            readable = 0
            for frame in self._show(spans, needed):
                index = table.index(frame.pts)
                readable += index is not None
                if index in missing:
                    missing.remove(index)
                    yield index, self._to_rgb(frame)
                    if not missing:
                        return
            if min(missing) >= len(table.shown):  # all that is missing was cut off
                readable = len(table.shown)
                break
        reason = f"{readable} of {self.probe().frames} frames are readable, the file is damaged or cut off"
        raise ClipReadError(f"{self.path}: frame {min(missing)} cannot be decoded: {reason}")

    def _show(self, spans: list[tuple[int, int]], needed: Collection[int] = ()) -> Iterator[av.VideoFrame]:
        """Decode spans of packets, each from a keyframe on, and give the frames, with their positions as ``pts``.

        Those at positions that are not ``needed`` may be left out; all are needed by default.
        """
        # A container knows a packet that is cut in two. Transport streams flag one beside a counter that jumped, though
        # nothing may be missing. Which frame is made up in part, the decoder tells.
        halves = set() if self._container.format.name == "mpegts" else self._table.flagged
        for start, stop in spans:
            self._go_to(start)
            codec = self._stream.codec_context
            codec.flush_buffers()
            skippable = bool(needed) and self._table.ordered and codec.codec.name in _SKIPPABLE_CODECS
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
                    trusted |= frame.pts == start and frame.pict_type in (PictureType.I, PictureType.NONE)
                    if trusted and not frame.is_corrupt and frame.pts not in halves:
                        yield frame

    def _read_packets(self, stop: int) -> Iterator[av.Packet]:
        """Read the packets from here up to position ``stop``."""
        for packet in islice(self._packets, max(stop - self._position, 0)):
            packet.pts = self._position  # the frame that is decoded from it has the same
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
