# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Which files of weights others have published, and how they are fetched.

The downloads of MONAI and torch start anew after a broken connection; :func:`download` goes on.
"""

import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from monai.bundle import ConfigParser
from tqdm import tqdm

from endofm_monai.utils import PathLike, atomic_path, check_writable, nearest_key, sha256
from endofm_monai.weights.layouts import WeightsError

CATALOGUE = Path(__file__).with_suffix(".yaml")
_UNKNOWN = "not known"
PARTIAL, NOTHING_THERE = 206, 416  # answers of HTTP to a range
_BREAKS = (HTTPException, ConnectionError, TimeoutError, SSLError)  # of a connection, while a file is read


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights that somebody has published; what is None is not known. See ``catalogue.yaml``."""

    name: str  # under which it is saved
    method: str
    task: str
    page: str  # where it is published
    loads: str  # as what, from which keys; or why not
    url: str | None = None  # the file itself
    size: int | None = None  # in bytes
    sha256: str | None = None
    code_licence: str | None = None
    weights_licence: str | None = None
    alive: bool | None = None  # whether the link gave the file
    seen: str = ""  # when
    seen_by: str = ""
    preset: str | None = None  # of the EndoFM that it fills
    note: str = ""

    @property
    def link(self) -> str:
        """What is known of its link, and since when, in words."""
        return _UNKNOWN if self.alive is None else f"{'alive' if self.alive else 'dead'} {self.seen}".rstrip()

    @property
    def licences(self) -> str:
        """The licences of code and weights, in words."""
        return f"code: {self.code_licence or _UNKNOWN}; weights: {self.weights_licence or _UNKNOWN}"

    def __str__(self) -> str:
        lines = {
            **{"name": self.name, "method": self.method, "task": self.task, "page": self.page},
            "file": self.url or "no address that a program can fetch",
            "size": f"{self.size:,} bytes" if self.size else _UNKNOWN,
            "SHA-256": self.sha256 or _UNKNOWN,
            "licence": self.licences,
            "link": f"{self.link}, {self.seen_by}".rstrip(", "),
            **{"preset": self.preset or "none", "loads": self.loads, "note": self.note},
        }
        return "\n".join(f"{label + ':':<9} {text}" for label, text in lines.items() if text)


def read_catalogue() -> dict[str, PublishedFile]:
    """The published files that are known, by name."""
    methods = ConfigParser.load_config_file(str(CATALOGUE))
    return {
        name: PublishedFile(name, method, **{**shared, **fields})
        for method, shared in methods.items()
        for name, fields in shared.pop("files").items()
    }


def find(name: str) -> PublishedFile:
    """A published file by its name; a ``WeightsError`` names the nearest one when there is none."""
    catalogue = read_catalogue()
    if name not in catalogue:
        raise WeightsError(f"{name}: the catalogue has no such file.{nearest_key(name, catalogue)}")
    return catalogue[name]


def list_published(task: str | None = None) -> str:
    """Give a table of the published files of weights.

    Args:
        task: of these alone: backbone, classification, segmentation, detection or phases.
    """
    files = read_catalogue().values()
    tasks = sorted({file.task for file in files})
    if task not in (None, *tasks):
        raise ValueError(f"`task` must be one of {', '.join(tasks)}, found {task!r}.")
    rows = [("name", "method", "task", "preset", "size", "link", "licence of weights")]
    for file in (file for file in files if task in (None, file.task)):
        size = f"{file.size / 1e6:,.0f} MB" if file.size else "?"
        licence, preset = file.weights_licence or "?", file.preset or "-"
        rows.append((file.name, file.method, file.task, preset, size, file.link, licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    hint = "`show NAME` says more: where it is published, which keys load, or why it does not fit."
    return "\n".join([*lines, "", hint])


def show_published(name: str) -> str:
    """Say all that is known of a published file of weights."""
    return str(find(name))


def download(name: str, output: PathLike, accept_licence: bool = False) -> str:
    """Fetch a published file of weights; after a broken connection the same command goes on where it broke.

    Args:
        name: of the catalogue, see ``list``.
        output: folder to write to.
        accept_licence: that you accept the licence, which is shown.
    """
    file = find(name)
    print(f"{name}: {file.licences}", flush=True)
    if file.alive is False:
        raise WeightsError(f"{name}: its link is {file.link}; ask for the file at {file.page}.")
    if file.url is None:
        raise WeightsError(f"{name}: has no address that a program can fetch; it is at {file.page}.")
    if accept_licence is not True:
        raise WeightsError(f"{name}: is fetched if you accept its licence ({file.licences}) with `--accept_licence`.")
    check_writable(output)
    target = Path(output, name)
    if target.exists():
        return f"{target}: is there already, SHA-256 {_check(target, file, str(target))}"
    part = _receive(file, target)
    try:
        digest = _check(part, file, str(file.url))
    except WeightsError:
        part.unlink()
        raise
    with atomic_path(target) as temporary:
        part.replace(temporary)
    return f"{target}: {target.stat().st_size:,} bytes, SHA-256 {digest}"


def _check(path: Path, file: PublishedFile, where: str) -> str:
    """Compare a file with what the catalogue knows of it, and give its SHA-256."""
    _check_size(file, path.stat().st_size, where)
    digest = sha256([path])
    if file.sha256 not in (None, digest):
        raise WeightsError(f"{where}: is another file than the published: SHA-256 {digest} instead of {file.sha256}.")
    return digest


def _check_size(file: PublishedFile, size: int | None, where: str) -> None:
    if file.size not in (None, size):
        raise WeightsError(f"{where}: is another file than the published: {size:,} instead of {file.size:,} bytes.")


def _receive(file: PublishedFile, target: Path) -> Path:
    """Fetch what is missing of the file into a part beside the target."""
    part, answer = _ask(file, target)
    is_whole = False
    with answer:
        start = part.stat().st_size if answer.status == PARTIAL else 0
        length = int(answer.headers.get("Content-Length") or 0)
        total = start + length if length else file.size
        _check_size(file, total, str(file.url))
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=file.name)
        with bar, part.open("ab" if start else "wb") as stream, suppress(*_BREAKS):
            while block := answer.read(1 << 20):
                stream.write(block)
                bar.update(len(block))
            is_whole = True
    size = part.stat().st_size
    if not is_whole or (total and size != total):  # some breaks look like the end
        raise WeightsError(f"{file.url}: broke off after {size:,} bytes; the same command goes on from there.")
    return part


def _ask(file: PublishedFile, target: Path) -> tuple[Path, HTTPResponse]:
    """Ask for the rest of the file if a part of the server's version of it is there, else for all of it."""
    for part in target.parent.glob(f".????????.{target.name}.part"):
        answer = _request(file, part.stat().st_size)
        if answer.status == PARTIAL and part == _part(target, answer):
            return part, answer
        answer.close()
        part.unlink()
    answer = _request(file)
    return _part(target, answer), answer


def _part(target: Path, answer: HTTPResponse) -> Path:
    """The file for what has come, by the version that the server has."""
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return target.with_name(f".{zlib.crc32(version.encode()):08x}.{target.name}.part")


def _request(file: PublishedFile, start: int = 0) -> HTTPResponse:
    """Ask for a file from a byte on, or for all of it if there is nothing from there on."""
    address = direct_address(str(file.url))
    headers = {"User-Agent": "endofm-monai", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        answer = urlopen(Request(address, headers=headers), timeout=60)  # seconds without an answer
    except HTTPError as error:
        if start and error.code == NOTHING_THERE:
            return _request(file)
        raise WeightsError(f"{address}: answers with {error.code} ({error.reason}); the link may be dead.") from error
    except OSError as error:
        raise WeightsError(f"{address}: cannot be reached ({getattr(error, 'reason', error)}).") from error
    if answer.headers.get_content_type() == "text/html":
        answer.close()
        raise WeightsError(f"{address}: answers with a page instead of the file; look at it in a browser: {file.page}.")
    return answer


def direct_address(url: str) -> str:
    """The address that gives a file itself, where ``url`` is a page of Google Drive's about it."""
    drive = re.match(r"https://drive\.google\.com/file/d/([\w-]+)/view", url)
    return f"https://drive.usercontent.google.com/download?id={drive[1]}&export=download&confirm=t" if drive else url
