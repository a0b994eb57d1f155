# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TEMPORARY_PREFIX", "atomic_path"]

TEMPORARY_PREFIX = ".endofm-"
"""What the names of temporary files begin with; a killed process leaves one behind."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of ``path`` only after a complete write.

    A killed process or a full disk leaves the former file at ``path`` as it was.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        a path in the same folder, with the same suffix, to write to.

    Raises:
        OSError: when the folder cannot be made or the disk is full; the message names ``path``.

    Example::

        with atomic_path("embeddings.npz") as temporary:
            numpy.savez(temporary, embeddings=embeddings)
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{TEMPORARY_PREFIX}{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write: {error.strerror or error}", str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
