# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from endofm_monai.utils import PathLike, atomic_path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
img { max-width: 100%; display: block; margin: 1rem 0; }
table { border-collapse: collapse; } td, th { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #eee; }
td:first-child, th:first-child { text-align: left; } footer { margin-top: 3rem; color: #777; }
"""


@dataclass
class Section:
    """A part of a page: a text, PNG pictures, HTML; each may be absent."""

    heading: str
    text: str = ""
    pictures: Sequence[PathLike] = ()
    body: str = ""  # HTML

    def html(self) -> str:
        """The part as HTML, with the pictures within it."""
        heading, text = escape(self.heading), escape(self.text)
        images = (base64.b64encode(Path(picture).read_bytes()).decode() for picture in self.pictures)
        shown = (f'<img alt="{heading}" src="data:image/png;base64,{image}">' for image in images)
        return "\n".join(filter(None, [f"<h2>{heading}</h2>", text and f"<p>{text}</p>", *shown, self.body]))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], style: str = "") -> str:
    """A table whose cells are HTML, for the ``body`` of a :class:`Section`."""
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows]
    names = f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>\n" if head else ""
    return f'<table class="{style}">{names}{"".join(lines)}</table>'


def write_page(
    path: PathLike, title: str, sections: Sequence[Section], footer: str = "Research only.", head: str = ""
) -> None:
    """Write one HTML file that holds all that it shows, and asks nothing of the network; ``head`` is for its head."""
    body = "\n".join(section.html() for section in sections)
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n{head}</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
