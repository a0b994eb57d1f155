# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import csv
import hashlib
import io
import json
import os
import platform
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeAlias, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "TEMPORARY_PREFIX", "PathLike", "atomic_path", "check_writable", "hold_folder", "open_csv", "open_zip", "printable",
    "read_csv", "read_json", "read_text", "remove_leftovers", "sha256", "temporary_prefix", "write_csv", "write_json",
]  # fmt: skip

T = TypeVar("T")
PathLike: TypeAlias = str | os.PathLike[str]
TEMPORARY_PREFIX = f".endofm-{zlib.crc32(platform.node().encode()):08x}-"
"""What the names of this machine's temporary files begin with; the number of the process follows."""

_MAX_JSON = 1 << 29  # bytes, of which Python makes ten times as much


def temporary_prefix() -> str:
    """What the names of this process's temporary files and folders begin with."""
    return f"{TEMPORARY_PREFIX}{os.getpid()}-"


def remove_leftovers(folder: PathLike, pattern: str = "") -> None:
    """Remove what killed processes of this machine left in a folder, with ``pattern="**/"`` also in those below it."""
    for path in Path(folder).glob(f"{pattern}{TEMPORARY_PREFIX}*"):
        if not _is_alive(path.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]):
            with suppress(OSError):  # another process may be doing the same
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_alive(number: str) -> bool:
    try:
        os.kill(int(number), 0)
    except (OSError, ValueError, OverflowError) as error:  # another user's, or no name of ours
        return not isinstance(error, ProcessLookupError)
    return int(number) > 0


_clean_once = cache(remove_leftovers)


def check_writable(folder: PathLike) -> None:
    """Make a folder, and raise an ``OSError`` that names it when nothing can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(folder), prefix=temporary_prefix()):
            pass
    except OSError as error:
        raise OSError(error.errno, f"cannot be written to: {error.strerror or error}", str(folder)) from error


def hold_folder(folder: PathLike, what: str) -> Callable[[], None]:
    """Hold a folder for this process, until it calls the function that is given or ends, in whatever way.

    The lock is a file ``<what>.lock``, which forked workers do not share; where there are no locks, nothing is held.
    """
    path = Path(folder, f"{what}.lock")
    file = open(path, "ab+", buffering=0)  # noqa: SIM115 - as long as the folder is held

    def release() -> None:
        if not file.closed:
            path.unlink(missing_ok=True)
            file.close()

    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        running = f"another {what} is running there ({file.read().decode() or 'another process'})"
        file.close()
        raise FileExistsError(f"{folder}: {running}; wait for it, or choose another folder.") from error
    except OSError:  # no locks, or no room for what the file tells
        pass
    return release


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of ``path`` only after a complete write.

    A killed process or a full disk leaves the former file at ``path`` as it was. The temporary path has the same
    suffix and the same folder, which is made where it is missing. An ``OSError`` names ``path``.
    """
    path = Path(path)
    temporary = path.parent / f"{temporary_prefix()}{token_hex(4)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean_once(path.parent.absolute())
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write: {error.strerror or error}", str(path)) from error
    finally:
        with suppress(OSError):  # there may be no such folder
            temporary.unlink(missing_ok=True)


def write_json(path: PathLike, content: Any, indent: int | None = 2) -> None:
    """Write JSON atomically, in ASCII; what is not finite becomes null, since JSON has no NaN."""
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(finite, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def open_csv(path: PathLike, header: Sequence[str]) -> Iterator[Callable[[Iterable[Sequence[Any]]], Any]]:
    """Write a table atomically, rows as they come; see :func:`printable` for names that are not UTF-8."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer.writerows


def write_csv(path: PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as :func:`open_csv` does."""
    with open_csv(path, header) as write_rows:
        write_rows(rows)


def printable(text: str) -> str:
    r"""Text for tables, XML and pictures: a byte of a file name that is not UTF-8 is written out, as ``\udcf6``.

    Files are named by the bytes themselves, and JSON, which has the same escape, gives them again when it is read.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def read_text(path: PathLike) -> str:
    """Read text in UTF-8, with or without the mark at its beginning that Windows writes; line ends stay as they are."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise ValueError(f"{path}: must be text in UTF-8, but {found}; save it as UTF-8.") from error


def read_csv(path: PathLike, delimiter: str = ",") -> list[dict[str, str]]:
    """Read the rows of a table whose first line names the columns; see :func:`read_text`."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}: is no readable table ({error}).") from error
    for line, row in enumerate(rows, start=2):
        if any(row.pop(None, ())) or None in row.values():
            raise ValueError(f"{path}: line {line}: has other cells than the first line names, found {row}.")
    return rows


def read_json(path: PathLike, kind: type[T]) -> T:
    """Read JSON that must hold an object (``dict``) or a ``list``."""
    if (size := os.path.getsize(path)) > _MAX_JSON:
        raise ValueError(f"{path}: has {size} bytes; JSON is read up to {_MAX_JSON}.")
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error}).") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: must hold a {kind.__name__}, but holds a {type(content).__name__}.")
    return content


@contextmanager
def open_zip(path: PathLike, max_ratio: int) -> Iterator[zipfile.ZipFile]:
    """Open an archive that does not unpack to more than ``max_ratio`` times its own size, or raise a ``ValueError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(entry.file_size for entry in archive.infolist()), os.path.getsize(path)
            if unpacked > max_ratio * size:
                most = f"more than {max_ratio} times as much"
                raise ValueError(f"{path}: {size} bytes would unpack to {unpacked}, {most}.")
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the file itself, not of an offset in it
            raise
        raise ValueError(f"{path}: is a damaged archive, or one of an unknown kind ({error}).") from error


def sha256(files: Iterable[PathLike]) -> str:
    """Give the SHA-256 of the bytes of files, one after another, as ``cat FILES | sha256sum`` does."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
