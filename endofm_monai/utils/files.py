# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import csv
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".endofm-"
"""What the names of temporary files begin with; a killed process leaves one behind."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of ``path`` only after a complete write.

    A killed process or a full disk leaves the former file at ``path`` as it was.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        a path in the same folder, with the same suffix.

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


def write_json(path: str | os.PathLike, content: Any, indent: int | None = 2) -> None:
    """Write JSON atomically; what is not finite becomes null, since JSON has no NaN."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=indent, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def sha256(files: Iterable[str | os.PathLike]) -> str:
    """Give the SHA-256 of the bytes of files, one after another, as ``cat FILES | sha256sum`` does."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
