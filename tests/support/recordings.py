# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Video files as recorders write them and players read them: joined, with sound, or with one field a packet."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MACROBLOCKS = 4  # a picture of fields has 64 x 64 pixels


def copy_packets(source: Path, path: Path, shift: int = 0, skip: int = 0) -> Path:
    """Copy the packets of a video's stream from number ``skip`` on, their times ``shift`` units later."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(opened.streams.video[0])
        for packet in [packet for packet in opened.demux(video=0) if packet.size][skip:]:
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            container.mux(packet)
    return path


def add_sound(source: Path, path: Path, seconds: float) -> Path:
    """Copy a video's stream, and put ``seconds`` of silence beside it."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(opened.streams.video[0])
        sound = container.add_stream("mp2", rate=44100)
        sound.codec_context.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, int(44100 * seconds)), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 44100, 0
        packets = [packet for packet in opened.demux(video=0) if packet.size]
        for packet in packets:
            packet.stream = stream
        packets += [packet for part in (silence, None) for packet in sound.encode(part)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


class _Bits:
    """Writes H.264's numbers: unsigned ones of a width, and Exp-Golomb codes."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def put(self, width: int, value: int) -> _Bits:
        self.bits += [value >> (width - 1 - place) & 1 for place in range(width)]
        return self

    def golomb(self, *values: int) -> _Bits:
        for value in values:
            width = (value + 1).bit_length()
            self.put(width - 1, 0).put(width, value + 1)
        return self

    def unit(self, kind: int) -> bytes:
        """End a NAL unit, escape what looks like a start code, and give it with one."""
        data = bytearray([kind])
        zeros = 0
        for byte in np.packbits(np.array([*self.bits, 1], np.uint8)).tobytes():
            if zeros >= 2 and byte <= 3:
                data.append(3)
                zeros = 0
            data.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes(data)


def _parameters() -> bytes:
    sequence = _Bits().put(8, 77).put(8, 0).put(8, 30).golomb(0, 4, 0, 4, 1).put(1, 0)
    sequence.golomb(MACROBLOCKS - 1, MACROBLOCKS // 2 - 1).put(4, 0b0010)  # fields are allowed
    sequence.put(1, 1).put(4, 0).put(1, 1).put(32, 1).put(32, 50).put(1, 1).put(4, 0)  # 50 fields a second
    picture = _Bits().golomb(0, 0).put(2, 0).golomb(0, 0, 0).put(3, 0).golomb(0, 0, 0).put(3, 0)
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(number: int, rows: np.ndarray, bottom: int) -> bytes:
    first = number == 0 and not bottom
    bits = _Bits().golomb(0, 7, 0).put(8, number).put(2, 0b10 | bottom)
    if first:
        bits.golomb(0)
    bits.put(8, 2 * number + bottom).put(2 if first else 1, 0).golomb(0)
    for row in range(0, len(rows), 16):
        for column in range(0, rows.shape[1], 16):
            bits.golomb(25)  # uncompressed
            bits.put(-len(bits.bits) % 8, 0)
            block = rows[row : row + 16, column : column + 16].ravel()
            bits.bits += np.unpackbits(np.append(block, np.full(128, 128, np.uint8))).tolist()
    return bits.unit(0x65 if first else 0x21)


def number_of_field_picture(frame: np.ndarray) -> int:
    """The number that :func:`write_fields` wrote into a frame ``(64, 64, 3)``."""
    return sum(1 << bit for bit in range(8) if frame[16:32, 8 * bit + 2 : 8 * bit + 6].mean() > 128)


def write_fields(path: Path, frames: int, pairs: bool) -> Path:
    """Write interlaced H.264, two field pictures a frame, as AVCHD recorders do; ``pairs`` gives both one time."""

    def parts() -> Iterator[tuple[bytes, int, bool]]:
        for number in range(frames):
            picture = np.full((16 * MACROBLOCKS, 16 * MACROBLOCKS), 60, np.uint8)
            for bit in range(8):
                picture[8:40, 8 * bit : 8 * bit + 8] = 220 if number >> bit & 1 else 20
            fields = [b"\0\0\0\1\x09\xf0" + _field(number, picture[half::2], half) for half in (0, 1)]
            if number % 10 == 0:
                fields[0] = fields[0][:6] + _parameters() + fields[0][6:]
            for half, data in enumerate([b"".join(fields)] if pairs else fields):
                yield data, 3600 * number + 1800 * half, number % 10 == 0 and not half

    with av.open(str(path), "w") as container:
        stream = container.add_mux_stream("h264", rate=25, width=16 * MACROBLOCKS, height=16 * MACROBLOCKS)
        stream.time_base = Fraction(1, 90000)
        for data, time, is_keyframe in parts():
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, stream.time_base
            packet.is_keyframe = is_keyframe
            container.mux(packet)
    return path
