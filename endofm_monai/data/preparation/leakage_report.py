# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.leakage import Match
from endofm_monai.utils import atomic_path

__all__ = ["write_leakage_report"]

_THUMBNAIL = 200  # pixels
_SHOWN = 500  # pairs
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Leakage report</title>
<style>body {{ font: 15px sans-serif; margin: 2em }}
td, th {{ padding: 4px 12px; text-align: left; vertical-align: top }}
img {{ display: block }}</style>
<h1>Leakage report</h1>
<p>{summary}</p>
<h2>The same files</h2>
<table><tr><th>clip<th>is also<th>files{exact}</table>
<h2>Frames that look alike</h2>
<p>Frames are found by perceptual hashes: 0 of 256 bits differ in equal frames, about 128 in unrelated ones. The closest
ones are then laid over each other at several sizes: 1 is the correlation of equal pictures. Copies that are re-encoded,
resized, mirrored, cut in time or cropped are found; rotated, strongly cropped or edited ones may not be. Look at each
pair: neighbors in one examination may be as alike as copies.</p>
<table><tr><th>clip<th>is like<th>likeness<th>bits<th>frames<th>mirrored{pairs}</table>
<h2>Not compared</h2>
<ul>{problems}</ul>
</html>
"""


def write_leakage_report(
    path: Path,
    groups: dict[str, int],
    exact: Sequence[tuple[str, str, int]],
    matches: Sequence[Match],
    problems: Sequence[str],
) -> None:
    """Write a page with thumbnails of the pairs of clips that have frames in common; it needs no other file.

    Args:
        path: the HTML file.
        groups: number of clips of each set and section.
        exact: pairs of clips with the same files, and how many.
        matches: pairs of clips with frames that look alike, the surest ones first.
        problems: what could not be compared, and why.
    """
    compared = ", ".join(f"{name}: {count}" for name, count in groups.items())
    summary = f"{len(exact)} pairs of clips share files, {len(matches)} have frames that look alike. Clips: {compared}."
    if len(matches) > _SHOWN:
        summary += f" The {_SHOWN} surest pairs are shown."
    page = _PAGE.format(
        summary=html.escape(summary),
        exact="".join(_row(first, second, str(files)) for first, second, files in exact),
        pairs="".join(_pair(match) for match in matches[:_SHOWN]),
        problems="".join(f"<li>{html.escape(problem)}" for problem in problems) or "<li>nothing",
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _pair(match: Match) -> str:
    bits, frame, second_frame = match.pairs[0]
    numbers = f"{match.likeness:.2f}", str(bits), str(match.frames), "yes" if match.flip else ""
    names = _row(f"{match.first.clip}, frame {frame}", f"{match.second.clip}, frame {second_frame}", *numbers)
    pictures = _thumbnail(match.first.image, frame), _thumbnail(match.second.image, second_frame)
    return names + "<tr>" + "".join(f'<td><img src="data:image/jpeg;base64,{picture}" alt="">' for picture in pictures)


def _row(*cells: str) -> str:
    return "\n<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells)


def _thumbnail(image: Any, frame: int) -> str:
    with open_clip(image) as reader:
        picture = Image.fromarray(reader.read([frame])[:, 0].permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
