# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What the container of a video tells, without decoding: its stream, which packet holds which frame, and when."""

import gc
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from threading import Lock
from typing import Any, BinaryIO, Generic, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

# Formats that hold their frames themselves. Playlists and image patterns (HLS, DASH, ffconcat, SDP, IMF, image2, ...),
# by whatever name, would have FFmpeg read files that nobody named.
_FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,asf,asf_o,flv,mxf,gxf,ogg,nut,rm,wtv,dv,ivf,swf,gif,apng,yuv4mpegpipe,mpegvideo,m4v,"
    "h264,hevc,vvc,vc1,av1,obu,dirac,mjpeg"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}

_MAX_DELAY = 16  # frames that a decoder may hold back to put them in order, in H.264 and H.265
_NOT_CODED = 16  # bytes; an MPEG-4 packet of no more may say that there is no frame
_VP8_SHOWN = 0x10  # in the first byte of a packet

# Of a clock with steps of 40 ms, one of more than a second is a pause of the recorder, if there are few of them.
_PAUSE_STEPS, _PAUSE_SECONDS, _PAUSE_SHARE = 10, 1.0, 0.1

# Of a constant rate, containers round the steps; if nearly all are alike, others stand for frames that are lost.
_REGULAR_STEP, _REGULAR_SHARE = 0.25, 0.9

# A forked worker has none of the threads of FFmpeg, but would wait for them where it collects a codec left behind.
os.register_at_fork(after_in_child=gc.freeze)


def open_container(path: str, file: BinaryIO | None = None) -> InputContainer:
    """Open a video file, or a binary ``file`` in its place, which leads to no other file."""
    if file:
        file.seek(0)
    return av.open(file or os.path.abspath(path), metadata_errors="replace", options=_OPTIONS)


def video_stream(container: InputContainer) -> VideoStream:
    """Choose the video of a file, as players do, or say in a ``ValueError`` why there is none.

    Pictures, such as a cover, are none. Of several the file's default counts, then the larger one, then the first.
    """
    streams: list[Any] = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    counted = any(stream.frames for stream in streams)
    best: Any = None if counted else container.streams.best("video")  # the one with several frames

    def rank(stream: Any) -> tuple[bool, bool, bool, int]:
        codec = stream.codec_context
        size = codec.width * codec.height if codec else 0
        return stream.frames != 1, bool(stream.disposition & Disposition.default), stream == best, size

    if not streams:
        raise ValueError("holds no video stream")
    stream = max(streams, key=rank)
    if stream.codec_context is None:
        raise ValueError("the codec of its video stream is not supported")
    in_tiles = any(each.disposition & Disposition.dependent for each in container.streams.video)
    if in_tiles and stream.frames == 1 and not stream.disposition & Disposition.default:  # a tile, or the thumbnail
        raise ValueError("is a picture in tiles, as phones write HEIC; store it as JPEG or PNG")
    return stream


def stated_end(path: str, file: BinaryIO | None = None) -> int:
    """Give where an AVI or Matroska file ends by its header, 0 where that is silent; a shorter one was cut off.

    All bits of a length are set where it was not known, as while recording.
    """
    with nullcontext(file) if file else open(path, "rb") as opened:
        opened.seek(0)
        head = opened.read(4096)
    if head.startswith(b"RIFF"):
        length = int.from_bytes(head[4:8], "little")
        return 8 + length if length < (1 << 32) - 1 else 0
    if head.startswith(b"\x1a\x45\xdf\xa3") and (place := head.find(b"\x18\x53\x80\x67") + 4) > 4:
        with suppress(IndexError):
            digits = 7 * (9 - head[place].bit_length())  # the first bit that is set tells how many bytes the size has
            start = place + digits // 7
            length = int.from_bytes(head[place:start], "big") & ((1 << digits) - 1)
            return start + length if length < (1 << digits) - 1 else 0
    return 0


class PacketTable:
    """Which packet of a video file holds which frame, learnt from the packets of its stream alone, without decoding.

    A container stores one compressed frame a packet, in decoding order, and states when each one is shown. A *position*
    counts packets in this order, from 0. Times are in the stream's time base. Where what is stated cannot be true (not
    ``ordered``), :meth:`settle` takes it from decoding. The codec's context is as it is before the first packet.
    """

    def __init__(self, packets: Iterable[Any], codec: Any) -> None:
        reorders = bool(codec.has_b_frames)  # the decoder shows frames in another order than it decodes them
        self.flagged: set[int] = set()  # positions of packets that the container calls incomplete
        self.sequential = False  # whether the file is read from its first packet on: packets set the decoder
        self.tail = 0  # how long the last frame is shown; 0 where that is not stated
        times, decoding, places, sizes, shown, keyframes, timed = (array(kind) for kind in "qqqiiib")
        latest = -(1 << 63)
        for position, packet in enumerate(packets):
            timed.append(packet.pts is not None)
            if packet.dts is not None:
                decoding.append(packet.dts)
            time = (packet.dts or 0) if packet.pts is None else packet.pts
            times.append(time)
            places.append(-1 if packet.pos is None else packet.pos)
            sizes.append(packet.size)
            if packet.is_keyframe:
                keyframes.append(position)
            if packet.is_corrupt:
                self.flagged.add(position)
            if packet.has_sidedata("new_extradata"):
                self.sequential |= bytes(packet.get_sidedata("new_extradata")) != codec.extradata
            self.sequential |= packet.has_sidedata("palette")
            if not packet.is_discard and (codec.name != "vp8" or memoryview(packet)[0] & _VP8_SHOWN):
                shown.append(position)
                if time > latest:
                    latest, self.tail = time, packet.duration or 0
        self.count = len(times)
        self.times = np.array(times)  # int64, when each packet is shown, else decoded, else 0
        self.shown = np.array(shown)  # int32, positions of the frames that edit lists do not hide, as they are shown
        self.keyframes = np.array(() if self.sequential else keyframes, np.int32)
        self._timed = np.array(timed, bool)

        moments = self.times[self.shown]
        order = np.argsort(moments, kind="stable")
        # ASF gives the last two packets one time.
        self._rising = bool((np.diff(moments) >= (0 if self._timed.all() else 1)).all())
        # A clock of decoding that never jumps tells that of what is shown neither does.
        self._steady = bool(self._timed.all() and len(decoding) == self.count and (np.diff(decoding) > 0).all())
        # A clock that starts again puts frames before others that were decoded long ago.
        agreed = bool(
            self._timed.all()
            and (codec.name != "mpeg4" or min(sizes, default=0) > _NOT_CODED)
            and (np.diff(moments[order]) > 0).all()
            and (np.diff(decoding) > 0).all()
            and np.abs(order - np.arange(len(order))).max(initial=0) <= (_MAX_DELAY if reorders else 0)
        )
        # AVI has no presentation times: FFmpeg invents some that rise in decoding order, whatever the stream.
        self.doubtful = agreed and reorders and self._rising  # is the order right only if no frame is reordered?
        self.ordered = agreed and not self.doubtful
        if self.ordered:
            self.shown = self.shown[order]
        self._ranks = self.times  # what is less is shown earlier
        self._stops = np.arange(1, self.count + 1)  # where the packets of a frame end
        self.hide(0)
        self._by_place = np.argsort(np.array(places), kind="stable").astype(np.int32)
        self.size = sum(sizes)  # bytes of all packets
        self._places, self._sizes = (np.array(values)[self._by_place] for values in (places, sizes))
        self.end = int((self._places[-1:] + self._sizes[-1:]).sum())  # place in the file

    def hide(self, count: int) -> None:
        """Take the first ``count`` frames out of those that are shown."""
        self.shown = self.shown[count:]
        self._index = np.full(self.count, -1, np.int32)
        self._index[self.shown] = np.arange(len(self.shown))

    def settle(self, positions: Iterable[int]) -> None:
        """Take the frames, and their order, from decoding: ``positions`` as their frames came out."""
        self.shown = np.array(list(dict.fromkeys(positions)), np.int32)
        self.hide(0)
        self._ranks = np.where(self._index < 0, self.count, self._index)
        self._stops = np.append(np.sort(self.shown)[1:], self.count)

    def clock(self) -> np.ndarray:
        """Give the stated time of each frame that is shown, float64, in the stream's time base; NaN where unknown."""
        times = self.times[self.shown].astype(np.float64)
        if self._rising or self._steady or not self._timed.any():
            times.sort()  # they are those of decoding, or of packets that hold two frames, or none (packed MPEG-4)
        else:
            times[~self._timed[self.shown]] = np.nan
        return times

    def index(self, position: int | None) -> int | None:
        """Give the place in ``shown`` of a position; ``None`` where the frame is not shown, or nobody knows which."""
        found = -1 if position is None else int(self._index[position])
        return found if found >= 0 else None

    def position(self, packet: Any) -> int | None:
        """Recognize a packet after a seek, by its place and size in the file: ``None`` where these are ambiguous."""
        place = -1 if packet.pos is None else packet.pos
        first, last = np.searchsorted(self._places, place), np.searchsorted(self._places, place, "right")
        found = self._by_place[first:last][self._sizes[first:last] == packet.size]
        return int(found[0]) if len(found) == 1 else None

    def spans(self, positions: Iterable[int]) -> list[tuple[int, int]]:
        """Give the packets that have to be decoded to get the frames at ``positions``.

        They are ranges ``(start, stop)`` in decoding order that neither touch nor overlap; each starts at a keyframe.
        """
        spans: list[tuple[int, int]] = []
        needed = list(positions)
        stops = self._stops[np.searchsorted(self._stops, needed, "right")].tolist()  # with second fields
        for start, stop in sorted(zip(map(self._start, needed), stops, strict=True)):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(spans[-1][1], stop)
            else:
                spans.append((start, stop))
        return spans

    def _start(self, position: int) -> int:
        """Give the last keyframe from which the frame at ``position`` can be decoded."""
        # in an open group of pictures, what follows a keyframe but is shown before it leans on the group before it
        for keyframe in self.keyframes[: np.searchsorted(self.keyframes, position, "right")][::-1]:
            if self._ranks[keyframe] <= self._ranks[position]:
                return int(keyframe)
        return 0


def film_times(clock: np.ndarray, step: float) -> np.ndarray:
    """Give the times of the frames of a film, from what a clock (NaN where not known) said while it was recorded.

    Variable frame rates stay as they are. A clock that is not known, or stands still, runs evenly between the times
    that are; one that jumps back, or ahead by a pause of the recorder, goes on by its median step, or where it tells
    nothing by ``step``. Both are in seconds, float64 ``(frames,)``; the times rise strictly, from 0 at the first frame.
    """
    moves = np.concatenate([[True], np.diff(clock) != 0])
    known = np.flatnonzero(np.isfinite(clock) & moves)
    steps = np.diff(clock[known]) / np.diff(known)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else step
    pauses = steps > max(_PAUSE_STEPS * usual, _PAUSE_SECONDS)
    if pauses.sum() > _PAUSE_SHARE * len(steps):
        pauses[:] = False
    steps[pauses | (steps <= 0)] = usual
    every = np.full(max(len(clock) - 1, 0), usual)
    if len(known):
        every[known[0] : known[-1]] = np.repeat(steps, np.diff(known))
    return np.concatenate([[0.0], every.cumsum()])[: len(clock)]


def mean_step(times: np.ndarray, tail: float) -> float:
    """Give the seconds a frame takes on the mean, not counting gaps where frames were lost; the last takes ``tail``."""
    steps = np.diff(times)
    if not len(steps):
        return tail
    usual = float(np.median(steps))
    regular = np.abs(steps - usual) <= _REGULAR_STEP * usual
    if regular.mean() >= _REGULAR_SHARE:
        return float(steps[regular].mean())
    return float(times[-1] + min(tail, _PAUSE_STEPS * usual)) / len(times)


Value = TypeVar("Value")


class RecentCache(Generic[Value]):
    """Keeps what was used most recently, up to a total size in any unit; for one process, and safe with threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[object, tuple[Value, int]] = OrderedDict()
        self._size = 0
        self._lock = Lock()
        # another thread may hold it while a worker is forked
        os.register_at_fork(after_in_child=lambda: setattr(self, "_lock", Lock()))

    def get(self, key: object) -> Value | None:
        """Give what is kept under a key; ``None`` where there is nothing."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: object, value: Value, size: int) -> None:
        """Keep a value, and let those go that were not used for the longest time."""
        if size > self.limit:
            return
        with self._lock:
            self._size += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while self._size > self.limit:
                self._size -= self._entries.popitem(last=False)[1][1]


def file_key(path: str) -> tuple[str, int, int]:
    """Give what tells one state of a file from another: its path, size and time of change."""
    state = os.stat(path)
    return os.path.abspath(path), state.st_size, state.st_mtime_ns
