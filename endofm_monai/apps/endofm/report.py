# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The pages that show what was found, made of the results in a folder alone, with ``report.css`` and ``report.js``."""

import base64
import io
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from monai.utils import ensure_tuple
from PIL import Image

import endofm_monai
from endofm_monai.apps.endofm.findings import MAX_GAP, MIN_SHARE, Finding, VideoFindings, read_findings
from endofm_monai.data import open_clip
from endofm_monai.formats.writers import video_rate
from endofm_monai.utils import printable, read_json
from endofm_monai.visualize.page import Section, table, write_page

MAX_ROWS, MAX_PICTURES = 200, 12
EMBEDDED = 16 << 20  # bytes of a video that a page holds within; a larger one stays beside it
MAX_MARKS = 1000  # in a lane of the timeline
MAX_LEVELS = 5  # of marks one above the other
TITLES = {"detection": "boxes", "segmentation": "masks", "classification": "class"}
STYLE, SCRIPT = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
HEAD = f"<style>{STYLE}</style>\n<script>{SCRIPT}</script>\n"
STEPS = '<button data-step="-1">&lsaquo; frame</button><button data-step="1">frame &rsaquo;</button><output></output>'
FOOTER = "For research only. Not a medical device: nothing here may guide the care of a patient."
MEANING = (
    f"What overlaps from frame to frame is one polyp, also where it is missed for up to {MAX_GAP} s. Frames count from "
    f"0. The size is that of its box or of its mask, whose regions below {MIN_SHARE:.2%} of the frame are left out."
)


def write_report(folder: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``report.html`` of what :func:`predict` has written to a folder; of several videos it lists their pages."""
    run, report = read_json(folder / "run.json", dict), folder / "report.html"
    rows = []
    for item in items:
        video = read_findings(folder, list(run["models"]), item)
        page = report if len(items) == 1 else folder / "pages" / f"{video.name}.html"
        images = ensure_tuple(item["image"])
        settings = _settings(folder, run, " to ".join(dict.fromkeys([images[0], images[-1]])))
        write_page(page, printable(video.name), [*_sections(page, video), settings], FOOTER, HEAD)
        rows.append(_row(report, page, video))
    if len(items) > 1:
        head = ["", "video", "frames", "length", "polyps, by boxes", "by masks", "class"]
        sections = [Section("What was found", body=table(head, rows)), _settings(folder, run, run["input"])]
        write_page(report, f"{len(items)} videos", sections, FOOTER, HEAD)
    return report


def _sections(page: Path, video: VideoFindings) -> list[Section]:
    """The parts of a video's page."""
    lacking = [f"{TITLES[task]}: {status}" for task, status in video.statuses.items() if status != "ok"]
    text = [f"Not all could be read to the end ({', '.join(lacking)})."] if lacking else []
    if not video.frames:
        return [Section("What was found", " ".join(text))]
    polyps = [polyp for found in video.polyps.values() for polyp in found]
    if video.polyps and not polyps:
        text.append("No polyp was found in any frame.")
    show = _stills(video) if video.frames == 1 else _stage(page, video)
    sections = [Section("What was found", " ".join(text), body=_facts(video) + show)]
    if polyps and video.frames > 1:
        of_a_task = next(filter(None, video.polyps.values()))  # which are enough
        sections.append(Section("Key frames", body=_best_frames(video, _longest(of_a_task, MAX_PICTURES))))
    if polyps:
        more = f" The longest {MAX_ROWS} of {len(polyps)} are listed." if len(polyps) > MAX_ROWS else ""
        sections.append(Section("Polyps", MEANING + more, body=_polyp_table(video, _longest(polyps, MAX_ROWS))))
    return sections


def _longest(polyps: Sequence[Finding], count: int) -> list[Finding]:
    """The longest polyps, in the order in which they begin."""
    return sorted(sorted(polyps, key=lambda polyp: (-polyp.frames, polyp.first))[:count], key=attrgetter("first"))


def _row(report: Path, page: Path, video: VideoFindings) -> list[object]:
    """A video in the list of them."""
    name = f'<a href="{_link(report, page)}">{escape(printable(video.name))}</a>'
    if not video.frames:
        return ["", name, ", ".join(sorted(set(video.statuses.values()))), *[""] * 4]
    picture = ""
    if video.overlays:
        task, overlay = next(iter(video.overlays.items()))
        longest = max(video.polyps[task], key=lambda polyp: polyp.frames, default=None)
        frame = longest.best if longest else video.frames // 2
        picture = f'<img alt="" src="{_pictures(overlay, [frame], 224)[frame]}">'
    counts = [len(video.polyps[task]) if task in video.polyps else "" for task in ("detection", "segmentation")]
    likely = ", ".join(ensure_tuple(video.classes["prediction"])) if video.classes is not None else ""
    return [picture, name, video.frames, video.when(video.frames), *counts, escape(printable(likely))]


def _settings(folder: Path, run: Mapping[str, Any], source: str) -> Section:
    versions = f"endofm-monai {endofm_monai.__version__}, torch {torch.__version__}, python {platform.python_version()}"
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    rows: list[tuple[str, Any]] = [("input", source), ("written", written), ("versions", versions)]
    for task, model in run["models"].items():
        path = folder / task / "settings.json"
        used = read_json(path, dict) if path.exists() else {}
        values = ", ".join(f"{key} {value}" for key, value in used.items() if key != "weights_sha256")
        computed = f"computed on {model['device']} in {model['precision']}"
        rows += [(task, f"{model['bundle']}, version {model['version']}, {computed}")]
        rows += [("model", model["weights"]), ("its SHA-256", model["sha256"]), ("settings", values)]
    cells = [[escape(key), escape(printable(str(value)))] for key, value in rows]
    return Section("Settings and models", body=table([], cells, "settings"))


def _link(page: Path, path: Path) -> str:
    """The address of a file for a page."""
    return quote(os.fsencode(os.path.relpath(path, page.parent)))


def _pictures(video: Path, frames: Iterable[int], width: int) -> dict[int, str]:
    """Frames of a video by their number, as the sources of images of at most a width."""
    found = {}
    with open_clip(video) as reader:
        info = reader.probe()
        shown = round(info.width * info.pixel_aspect), info.height
        for number, pixels in reader.stream(sorted(set(frames))):
            image, file = Image.fromarray(pixels).resize(shown), io.BytesIO()
            image.thumbnail((width, 4 * width))
            image.save(file, "JPEG", quality=85)
            found[number] = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return found


def _facts(video: VideoFindings) -> str:
    """The numbers that a reader wants first."""
    cards = [(str(len(polyps)), f"polyps, by {TITLES[task]}") for task, polyps in video.polyps.items()]
    if video.classes is not None:
        names = ensure_tuple(video.classes["prediction"])
        values = ", ".join(f"{video.classes['probabilities'][name]:.2f}" for name in names)
        cards.append((", ".join(names) or "none", f"class, with probability {values}" if names else "of the classes"))
    if video.frames > 1:
        cards.append((video.when(video.frames), f"{video.frames} frames, {video.fps:.4g} a second"))
    cards.append((f"{video.width}x{video.height}", "pixels"))
    boxes = (f"<div><b>{escape(printable(value))}</b>{escape(text)}</div>" for value, text in cards)
    return f'<div class="facts">{"".join(boxes)}</div>\n'


def _stills(video: VideoFindings) -> str:
    """The frame of a video that has no other."""
    figures = (
        f'<figure><img alt="{TITLES[task]}" src="{_pictures(path, [0], 1120)[0]}">'
        f"<figcaption>{TITLES[task]}</figcaption></figure>\n"
        for task, path in video.overlays.items()
    )
    return f'<div class="stills">{"".join(figures)}</div>'


def _stage(page: Path, video: VideoFindings) -> str:
    """The videos, of which one is shown, and the timeline."""
    tabs, players, note = "", "", ""
    for place, (task, path) in enumerate(video.overlays.items()):
        source = _link(page, path)
        if path.stat().st_size <= EMBEDDED:
            source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
        else:
            note = "<p>The video is too large for this page, which shows the file beside it: keep them together.</p>\n"
        hidden, pressed = (" hidden", "") if place else ("", ' class="on"')
        tabs += f'<button data-show="{task}"{pressed}>{TITLES[task]}</button>'
        players += f'<video id="{task}" controls muted playsinline preload="auto"{hidden} src="{source}"></video>\n'
    bar = f'<div class="bar">{tabs}{STEPS}</div>\n' if players else ""
    head = f'<div class="stage" data-frames="{video.frames}" data-fps="{float(video_rate(video.fps))!r}">\n'
    return f"{head}{players}{bar}{note}{_timeline(video)}</div>"


def _timeline(video: VideoFindings) -> str:
    lanes, legend = {task: _polyp_marks(video, polyps) for task, polyps in video.polyps.items()}, ""
    if video.classes is not None:
        lanes["classification"] = _class_marks(video, video.classes["windows"]), 1
        names = enumerate(map(printable, video.classes["probabilities"]))
        legend = "".join(f'<span class="class-{number % 4}">{escape(name)}</span>' for number, name in names)
    shown = "".join(
        f'<div class="lane"><b>{TITLES[task]}</b>'
        f'<div style="height:{max(1.6, 0.9 * levels)}rem">{marks}<i></i></div></div>\n'
        for task, (marks, levels) in lanes.items()
    )
    quarters = (video.when(round(video.frames * part / 4)) for part in range(5))
    ticks = "".join(f'<span style="left:{25 * part}%">{time}</span>' for part, time in enumerate(quarters))
    return f'{shown}<div class="lane axis"><b></b><div>{ticks}</div></div>\n<div class="legend">{legend}</div>\n'


def _mark(video: VideoFindings, kind: str, first: int, last: int, title: str, more: str = "", task: str = "") -> str:
    left, width = 100 * first / video.frames, 100 * (last + 1 - first) / video.frames
    where = f'data-task="{task}" data-frame="{first}" style="left:{left:.4f}%;width:{width:.4f}%;{more}"'
    return f'<button class="{kind}" {where} title="{escape(printable(title))}"></button>'


def _polyp_marks(video: VideoFindings, polyps: Sequence[Finding]) -> tuple[str, int]:
    """Marks of polyps, those at one time one above the other, and on how many levels they are."""
    shown, ends, levels = _longest(polyps, MAX_MARKS), [-1] * MAX_LEVELS, list[int]()
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
        ends = group[0]["begin_seconds"], group[-1]["end_seconds"]
        first, stop = np.searchsorted(video.times, np.subtract(ends, 1e-3)).tolist()  # which are rounded
        names = list(group[0]["probabilities"])
        means = np.mean([[window["probabilities"][name] for name in names] for window in group], axis=0)
        title = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, means, strict=True))
        shade = f"opacity:{max(0.25, means.max()):.2f}"
        marks.append(_mark(video, f"class-{means.argmax() % 4}", first, stop - 1, title, shade))
    return "".join(marks)


def _best_frames(video: VideoFindings, polyps: Sequence[Finding]) -> str:
    """The best frames of polyps of one task."""
    sources = _pictures(video.overlays[polyps[0].task], [polyp.best for polyp in polyps], 480)
    figures = (
        f'<figure><button data-task="{polyp.task}" data-frame="{polyp.best}">'
        f'<img alt="{escape(printable(polyp.name))}" src="{sources[polyp.best]}"></button>'
        f"<figcaption>frame {polyp.best}, {video.when(polyp.best)}</figcaption></figure>\n"
        for polyp in polyps
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def _polyp_table(video: VideoFindings, polyps: Sequence[Finding]) -> str:
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
