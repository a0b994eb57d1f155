# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

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
