# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

__all__ = ["PacketTable"]


class PacketTable:
    """Which packet of a video file holds which frame, learnt from the packets alone, without decoding.

    A container stores one compressed frame a packet, in decoding order, and states when each one is shown. The table
    puts the frames in presentation order and says which packets have to be decoded to get some of them. A *position*
    counts packets in decoding order, from 0.

    Args:
        packets: the packets (``av.Packet``) of one video stream, from the first to the last.
        reorders: whether the decoder shows frames in another order than it decodes them (B-frames).

    Attributes:
        count: number of packets.
        times: presentation time of each packet, in the stream's time base (decoding time, or 0, where not stated).
        end: when the last frame ends, in the stream's time base.
        shown: positions of the frames that are shown (an edit list hides some), in presentation order where
            ``ordered``, else in decoding order.
        index_of: the place in ``shown`` of each position.
        damaged: positions of packets that are known to be incomplete, as the last one of a file that is cut off.
        ordered: whether the packets state the presentation order. They do not in AVI, which has no presentation times:
            FFmpeg invents some that rise in decoding order, whatever the stream.
    """

    def __init__(self, packets: Iterable[Any], *, reorders: bool) -> None:
        self.times: list[int] = []
        self.shown: list[int] = []
        self.end = 0
        self.ordered = True
        self.damaged: set[int] = set()
        self._keyframes: list[int] = []
        self._position_of: dict[tuple[int | None, int], int | None] = {}
        for position, packet in enumerate(packets):
            self.ordered &= packet.pts is not None
            time = packet.pts if packet.pts is not None else packet.dts or 0
            self.times.append(time)
            if packet.is_keyframe:
                self._keyframes.append(position)
            if packet.is_corrupt:
                self.damaged.add(position)
            if not packet.is_discard:
                self.shown.append(position)
                self.end = max(self.end, time + (packet.duration or 0))
            place = (packet.pos, packet.size)
            self._position_of[place] = None if place in self._position_of else position
        self.count = len(self.times)

        times = [self.times[position] for position in self.shown]
        rising = all(earlier < later for earlier, later in pairwise(times))
        self.ordered &= len(set(times)) == len(times) and not (reorders and rising)
        if self.ordered:
            self.shown.sort(key=self.times.__getitem__)
        self.index_of: dict[int, int] = {}
        self.hide(0)

    def hide(self, count: int) -> None:
        """Take the first ``count`` frames out of those that are shown."""
        del self.shown[:count]
        self.index_of = {position: index for index, position in enumerate(self.shown)}

    def position(self, packet: Any) -> int | None:
        """Recognize a packet after a seek, by its place and size in the file: ``None`` where these are ambiguous."""
        return self._position_of.get((packet.pos, packet.size))

    def spans(self, positions: Iterable[int]) -> list[tuple[int, int]]:
        """Give the packets that have to be decoded to get the frames at ``positions``.

        Returns:
            ranges ``(start, stop)`` of positions in decoding order that neither touch nor overlap. Each starts at a
            keyframe.
        """
        spans: list[tuple[int, int]] = []
        for start, stop in sorted((self._start(position), position + 1) for position in positions):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(spans[-1][1], stop)
            else:
                spans.append((start, stop))
        return spans

    def _start(self, position: int) -> int:
        """Give the last keyframe from which the frame at ``position`` can be decoded.

        In an open group of pictures, frames that follow a keyframe in the file but are shown before it lean on the
        group before it.
        """
        for rank in range(bisect_right(self._keyframes, position) - 1, -1, -1):
            if self.times[self._keyframes[rank]] <= self.times[position]:
                return self._keyframes[rank]
        return 0
