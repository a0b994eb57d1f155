# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

__all__ = ["sha256"]


def sha256(files: Iterable[str | os.PathLike]) -> str:
    """Give the SHA-256 of the bytes of files, one after another, as ``cat FILES | sha256sum`` does.

    Args:
        files: paths of the files; one that is large is never held in memory as a whole.

    Raises:
        OSError: when one cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
