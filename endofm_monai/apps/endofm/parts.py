# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The parts of a video's page, as HTML; ``report.js`` makes them act, ``report.css`` gives them their looks."""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from monai.utils import ensure_tuple
from PIL import Image

from endofm_monai.apps.endofm.findings import Finding, VideoFindings
from endofm_monai.data import open_clip
from endofm_monai.utils import printable

EMBEDDED = 16 << 20  # bytes of a video that a page holds within; a larger one stays beside it
MAX_MARKS = 1000  # in a lane of the timeline
MAX_LEVELS = 5  # of marks one above the other
TITLES = {"detection": "boxes", "segmentation": "masks", "classification": "class"}


def table(head: Sequence[str], rows: Iterable[Sequence[object]], style: str = "") -> str:
    """A table whose cells are HTML."""
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows]
    names = f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>\n" if head else ""
    return f'<table class="{style}">{names}{"".join(lines)}</table>'


def link(page: Path, path: Path) -> str:
    """The address of a file for a page."""
    return quote(os.fsencode(os.path.relpath(path, page.parent)))


def pictures(video: Path, frames: Iterable[int], width: int) -> dict[int, str]:
    """Frames of a video by their number, as the sources of images of at most a width."""
    found = {}
    with open_clip(video) as reader:
        for number, pixels in reader.stream(sorted(set(frames))):
            image, file = Image.fromarray(pixels), io.BytesIO()
            image.thumbnail((width, 4 * width))
            image.save(file, "JPEG", quality=85)
            found[number] = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return found


def facts(video: VideoFindings) -> str:
    """The numbers that a reader wants first."""
    cards = [(str(len(polyps)), f"polyps, by {TITLES[task]}") for task, polyps in video.polyps.items()]
    if video.classes is not None:
        names = ensure_tuple(video.classes["prediction"])
        values = ", ".join(f"{video.classes['probabilities'][name]:.2f}" for name in names)
        cards.append((", ".join(names) or "none", f"class, with probability {values}" if names else "of the classes"))
    if video.frames > 1:
        cards += [(video.when(video.frames), f"{video.frames} frames, {video.fps:.4g} a second")]
    cards.append((f"{video.width}x{video.height}", "pixels"))
    boxes = (f"<div><b>{escape(printable(value))}</b>{escape(text)}</div>" for value, text in cards)
    return f'<div class="facts">{"".join(boxes)}</div>\n'


def stills(video: VideoFindings) -> str:
    """The frame of a video that has no other."""
    sources = ((TITLES[task], pictures(path, [0], 1120)[0]) for task, path in video.overlays.items())
    figures = (
        f'<figure><img alt="{name}" src="{source}"><figcaption>{name}</figcaption></figure>\n'
        for name, source in sources
    )
    return f'<div class="stills">{"".join(figures)}</div>'


def stage(page: Path, video: VideoFindings) -> str:
    """The videos, of which one is shown, and the timeline."""
    tabs, players, note = "", "", ""
    for place, (task, path) in enumerate(video.overlays.items()):
        source = link(page, path)
        if path.stat().st_size <= EMBEDDED:
            source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
        else:
            note = "<p>The video is too large for this page, which shows the file beside it: keep them together.</p>\n"
        hidden, pressed = (" hidden", "") if place else ("", ' class="on"')
        tabs += f'<button data-show="{task}"{pressed}>{TITLES[task]}</button>'
        players += f'<video id="{task}" controls muted playsinline preload="auto"{hidden} src="{source}"></video>\n'
    steps = (
        '<button data-step="-1">&lsaquo; frame</button><button data-step="1">frame &rsaquo;</button><output></output>'
    )
    bar = f'<div class="bar">{tabs}{steps}</div>\n' if players else ""
    fps = float(Fraction(video.fps).limit_denominator(1001))  # as `formats.open_video` has it
    head = f'<div class="stage" data-frames="{video.frames}" data-fps="{fps!r}">\n'
    return f"{head}{players}{bar}{note}{_timeline(video)}</div>"


def _timeline(video: VideoFindings) -> str:
    lanes = [_lane(TITLES[task], *_polyp_marks(video, polyps)) for task, polyps in video.polyps.items()]
    legend = ""
    if video.classes is not None:
        lanes.append(_lane(TITLES["classification"], _class_marks(video, video.classes["windows"])))
        names = enumerate(map(printable, video.classes["probabilities"]))
        legend = "".join(f'<span class="class-{number % 4}">{escape(name)}</span>' for number, name in names)
    quarters = (video.when(round(video.frames * part / 4)) for part in range(5))
    ticks = "".join(f'<span style="left:{25 * part}%">{time}</span>' for part, time in enumerate(quarters))
    return (
        f'{"".join(lanes)}<div class="lane axis"><b></b><div>{ticks}</div></div>\n<div class="legend">{legend}</div>\n'
    )


def _lane(name: str, marks: str, levels: int = 1) -> str:
    height = max(1.6, 0.9 * levels)
    return f'<div class="lane"><b>{name}</b><div style="height:{height}rem">{marks}<i></i></div></div>\n'


def _mark(video: VideoFindings, kind: str, first: int, last: int, title: str, more: str = "", task: str = "") -> str:
    left, width = 100 * first / video.frames, 100 * (last + 1 - first) / video.frames
    style = f"left:{left:.4f}%;width:{width:.4f}%;{more}"
    where = f'data-task="{task}" data-frame="{first}" style="{style}"'
    return f'<button class="{kind}" {where} title="{escape(printable(title))}"></button>'


def _polyp_marks(video: VideoFindings, polyps: Sequence[Finding]) -> tuple[str, int]:
    """Marks of polyps, those at one time one above the other, and on how many levels they are."""
    shown, ends, levels = sorted(polyps, key=lambda polyp: -polyp.frames)[:MAX_MARKS], [-1] * MAX_LEVELS, list[int]()
    shown.sort(key=lambda polyp: polyp.first)
    for polyp in shown:
        level = next((level for level, end in enumerate(ends) if end < polyp.first), MAX_LEVELS - 1)
        ends[level] = polyp.last
        levels.append(level)
    count = max(levels, default=0) + 1
    marks = []
    for polyp, level in zip(shown, levels, strict=True):
        score = "" if polyp.score is None else f", score {polyp.score:.2f}"
        title = f"{polyp.name}, {video.when(polyp.first)} to {video.when(polyp.last)}{score}"
        place = f"top:{100 * level / count:.2f}%;height:{100 / count:.2f}%"
        marks.append(_mark(video, polyp.task, polyp.first, polyp.last, title, place, polyp.task))
    return "".join(marks), count


def _class_marks(video: VideoFindings, windows: Sequence[Mapping[str, Any]]) -> str:
    """Windows in the color of their likeliest class; where they are too many, the means of neighbors."""
    marks = []
    for group in np.array_split(np.array(windows, dtype=object), min(len(windows), MAX_MARKS)):
        first = round(group[0]["begin_seconds"] * video.fps)
        last = min(video.frames, round(group[-1]["end_seconds"] * video.fps)) - 1
        names = list(group[0]["probabilities"])
        means = np.mean([[window["probabilities"][name] for name in names] for window in group], axis=0)
        title = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, means, strict=True))
        shade = f"opacity:{max(0.25, means.max()):.2f}"
        marks.append(_mark(video, f"class-{means.argmax() % 4}", first, last, title, shade))
    return "".join(marks)


def best_frames(overlay: Path, video: VideoFindings, polyps: Sequence[Finding]) -> str:
    """The best frames of polyps of one task, whose overlay video it is."""
    sources = pictures(overlay, [polyp.best for polyp in polyps], 480)
    figures = (
        f'<figure><button data-task="{polyp.task}" data-frame="{polyp.best}">'
        f'<img alt="{escape(printable(polyp.name))}" src="{sources[polyp.best]}"></button>'
        f"<figcaption>frame {polyp.best}, {video.when(polyp.best)}</figcaption></figure>\n"
        for polyp in polyps
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def polyp_table(video: VideoFindings, polyps: Sequence[Finding]) -> str:
    """A row for each polyp."""
    names = ["found by", "class", "first frame", "last frame", "best frame", "seen in", "largest size", "score"]
    rows = []
    for polyp in polyps:
        places = [
            f'{video.when(frame)} <button data-task="{polyp.task}" data-frame="{frame}">{frame}</button>'
            for frame in (polyp.first, polyp.last, polyp.best)
        ]
        size = f"{polyp.size:,.0f} px ({polyp.size / (video.width * video.height):.1%})"
        score = "" if polyp.score is None else f"{polyp.score:.2f}"
        rows.append([TITLES[polyp.task], escape(printable(polyp.name)), *places, polyp.frames, size, score])
    return table(names, rows)
