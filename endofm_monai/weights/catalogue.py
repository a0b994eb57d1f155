# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser

from endofm_monai.utils import nearest_key
from endofm_monai.weights.layouts import WeightsError

CATALOGUE = Path(__file__).with_suffix(".yaml")
_UNKNOWN = "not known"


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
    def state(self) -> str:
        """What is known of its link, and since when, in words."""
        return _UNKNOWN if self.alive is None else f"{'alive' if self.alive else 'dead'} {self.seen}".rstrip()

    @property
    def licences(self) -> str:
        """The licences of code and weights, in words."""
        return f"code: {self.code_licence or _UNKNOWN}; weights: {self.weights_licence or _UNKNOWN}"

    def __str__(self) -> str:
        lines = {
            "name": self.name,
            "method": self.method,
            "task": self.task,
            "page": self.page,
            "file": self.url or "no address that a program can fetch",
            "size": f"{self.size:,} bytes" if self.size else _UNKNOWN,
            "SHA-256": self.sha256 or _UNKNOWN,
            "licence": self.licences,
            "link": f"{self.state}, {self.seen_by}".rstrip(", "),
            "preset": self.preset or "none",
            "loads": self.loads,
            "note": self.note,
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
    files = list(read_catalogue().values())
    if task is not None and not any(file.task == task for file in files):
        raise ValueError(f"`task` must be one of {', '.join(sorted({file.task for file in files}))}, found {task!r}.")
    rows = [("name", "method", "task", "preset", "size", "link", "licence of weights")]
    for file in files:
        if task in (None, file.task):
            size = f"{file.size / 1e6:,.0f} MB" if file.size else "?"
            row = (file.name, file.method, file.task, file.preset or "-", size, file.state, file.weights_licence or "?")
            rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(
        [*lines, "", "`show NAME` says more: where it is published, which keys load, or why it does not fit."]
    )


def show_published(name: str) -> str:
    """Say all that is known of a published file of weights."""
    return str(find(name))
