# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The pages that show what was found, made of the results in a folder alone."""

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple

import endofm_monai
from endofm_monai.apps.endofm import parts
from endofm_monai.apps.endofm.findings import MAX_GAP, MIN_SHARE, VideoFindings, read_findings
from endofm_monai.utils import printable, read_json
from endofm_monai.visualize.page import Section, write_page

MAX_ROWS, MAX_PICTURES = 200, 12
STYLE, SCRIPT = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
HEAD = f"<style>{STYLE}</style>\n<script>{SCRIPT}</script>\n"
FOOTER = "For research only. Not a medical device: nothing here may guide the care of a patient."
MEANING = (
    f"What overlaps from frame to frame is one polyp, also where it is missed for up to {MAX_GAP} s. Frames count from "
    f"0. The size is that of its box or of its mask, whose regions below {MIN_SHARE:.2%} of the frame are left out."
)


def write_report(folder: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``report.html`` of the results in a folder; of several videos each has a page in ``pages`` that it lists.

    Args:
        folder: with ``run.json``, and a folder of results of each of its tasks.
        items: the videos, see :func:`endofm_monai.data.list_videos`.
    """
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
        sections = [Section("What was found", body=parts.table(head, rows)), _settings(folder, run, run["input"])]
        write_page(report, f"{len(items)} videos", sections, FOOTER, HEAD)
    return report


def _sections(page: Path, video: VideoFindings) -> list[Section]:
    """The parts of a video's page."""
    lacking = [f"{parts.TITLES[task]}: {status}" for task, status in video.statuses.items() if status != "ok"]
    text = [f"Not all could be read to the end ({', '.join(lacking)})."] if lacking else []
    if not video.frames:
        return [Section("What was found", " ".join(text))]
    polyps = [polyp for found in video.polyps.values() for polyp in found]
    if video.polyps and not polyps:
        text.append("No polyp was found in any frame.")
    show = parts.stills(video) if video.frames == 1 else parts.stage(page, video)
    sections = [Section("What was found", " ".join(text), body=parts.facts(video) + show)]
    longest = sorted(polyps, key=lambda polyp: (-polyp.frames, polyp.first))
    if polyps and video.frames > 1:
        task = next(task for task, found in video.polyps.items() if found)  # one task's are enough
        chosen = [polyp for polyp in longest if polyp.task == task][:MAX_PICTURES]
        chosen.sort(key=lambda polyp: polyp.first)
        sections.append(Section("Key frames", body=parts.best_frames(video.overlays[task], video, chosen)))
    if polyps:
        listed = sorted(longest[:MAX_ROWS], key=lambda polyp: polyp.first)
        more = f" The longest {MAX_ROWS} of {len(polyps)} are listed." if len(polyps) > MAX_ROWS else ""
        sections.append(Section("Polyps", MEANING + more, body=parts.polyp_table(video, listed)))
    return sections


def _row(report: Path, page: Path, video: VideoFindings) -> list[object]:
    """A video in the list of them."""
    name = f'<a href="{parts.link(report, page)}">{escape(printable(video.name))}</a>'
    if not video.frames:
        return ["", name, ", ".join(sorted(set(video.statuses.values()))), *[""] * 4]
    picture = ""
    for task, overlay in [*video.overlays.items()][:1]:
        longest = max(video.polyps[task], key=lambda polyp: polyp.frames, default=None)
        frame = longest.best if longest else video.frames // 2
        picture = f'<img alt="" src="{parts.pictures(overlay, [frame], 224)[frame]}">'
    counts = [len(video.polyps[task]) if task in video.polyps else "" for task in ("detection", "segmentation")]
    likely = video.classes["prediction"] if video.classes is not None else ""
    return [picture, name, video.frames, video.when(video.frames), *counts, escape(str(likely))]


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
    return Section("Settings and models", body=parts.table([], cells, "settings"))
