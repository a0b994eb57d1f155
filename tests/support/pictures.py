# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_turned(path: Path, shown: np.ndarray, **options: Any) -> Path:
    """Write a picture that is stored a quarter turn to the left, with EXIF data that ask to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(shown))).save(path, exif=exif, **options)
    return path


def write_pages(path: Path, pages: Any, **options: Any) -> Path:
    """Write several pictures into one file."""
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def write_gray_tiff(
    path: Path, levels: np.ndarray, bits: int = 16, white: int = 1, orientation: int = 1, kind: int = 1
) -> Path:
    """Write gray TIFF of 8, 12 or 16 bits, or of floating point (32), whose white is 0 on request."""
    height, width = levels.shape
    if bits == 12:
        first, second = levels.reshape(-1, 2).T
        pairs = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
        data = pairs.astype(np.uint8).tobytes()
    else:
        data = levels.astype({8: "<u1", 16: "<u2", 32: "<f4"}[bits]).tobytes()
    shorts = {258: bits, 259: 1, 262: white, 274: orientation, 277: 1, 278: height, 339: 3 if bits == 32 else kind}
    tags = {256: width, 257: height, 273: 8, 279: len(data), **shorts}
    entries = [struct.pack("<HHII", tag, 3 if tag in shorts else 4, 1, tags[tag]) for tag in sorted(tags)]
    start = 8 + len(data) + len(data) % 2
    head = b"II*\0" + struct.pack("<I", start)
    path.write_bytes((head + data).ljust(start, b"\0") + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
    return path


def write_png_16(path: Path, levels: np.ndarray) -> Path:
    """Write PNG with 16 bits a channel: gray with alpha, RGB or RGBA, ``(H, W, 2 to 4)``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = levels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path
