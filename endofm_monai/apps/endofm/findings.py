# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What the files that the bundles wrote of a video say: polyps from their first to their last frame, and classes."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.measure import label, regionprops

from endofm_monai.data import open_clip, result_path
from endofm_monai.formats import read_coco_masks
from endofm_monai.inferers import BoxLinker
from endofm_monai.utils import read_json

MAX_GAP = 0.5  # seconds in which a polyp may be missed
MIN_SHARE = 5e-4  # of the frame, that a region of a mask covers at least
RESULTS_DIRS = {"detection": "", "segmentation": "", "classification": "videos"}  # in the folder of a task


@dataclass
class Finding:
    """A polyp in a video: frames count from 0, sizes are in pixels."""

    task: str  # that found it
    name: str  # of its class
    first: int
    last: int
    frames: int = 0  # in which it was found
    best: int = 0  # the frame of its highest score or, of masks, largest size
    size: float = 0.0  # the largest, of the mask or the box
    score: float | None = None  # the highest

    def extend(self, frame: int, size: float, score: float | None) -> None:
        """Add a frame in which it is found."""
        self.last, self.frames = frame, self.frames + 1
        is_larger, is_likelier = size > self.size, score is not None and (self.score is None or score > self.score)
        if is_likelier or (score is None and is_larger):
            self.best, self.score = frame, score
        self.size = max(self.size, size)


@dataclass
class VideoFindings:
    """All that is known of a video, of the tasks by which it could be read to its end."""

    name: str
    statuses: Mapping[str, str]  # by task: "ok", "damaged", "unreadable" or "not done"
    width: int = 0
    height: int = 0
    fps: float = 0.0
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of the frames, in seconds
    polyps: dict[str, list[Finding]] = field(default_factory=dict)  # by task
    overlays: dict[str, Path] = field(default_factory=dict)  # by task
    classes: Mapping[str, Any] | None = None  # see :class:`endofm_monai.handlers.ProbabilitySaver`

    @property
    def frames(self) -> int:
        """Number of its frames; 0 of a video of which nothing is known."""
        return len(self.times)

    def when(self, frame: int) -> str:
        """The time of a frame; with the number of frames, that of the end of the last one."""
        seconds = self.times[frame] if frame < self.frames else self.times[-1] + 1 / self.fps
        minutes, seconds = divmod(round(float(seconds), 2), 60)
        hours, minutes = divmod(int(minutes), 60)
        return f"{hours}:{minutes:02d}:{seconds:05.2f}" if hours else f"{minutes}:{seconds:05.2f}"


def status_of(folder: Path, task: str, name: str) -> str:
    """How the way of a task through a video ended, see :class:`endofm_monai.handlers.results.ResultSaver`."""
    path = result_path(folder / task / RESULTS_DIRS[task], name)
    return read_json(path, dict)["status"] if path.exists() else "not done"


def read_findings(folder: Path, tasks: Sequence[str], item: Mapping[str, Any]) -> VideoFindings:
    """Read what the folders of tasks in ``folder`` say of a video, see :func:`endofm_monai.data.list_videos`."""
    name = item["name"]
    video = VideoFindings(name, {task: status_of(folder, task, name) for task in RESULTS_DIRS if task in tasks})
    done = [task for task, status in video.statuses.items() if status == "ok"]
    if done:
        with open_clip(item["image"]) as reader:
            info, video.times = reader.probe(), reader.times()
        video.width, video.height, video.fps = info.width, info.height, info.fps
    for task in done:
        if task == "classification":
            video.classes = read_json(result_path(folder / task / RESULTS_DIRS[task], name), dict)
        else:
            video.polyps[task] = find_polyps(folder / task, name, video.times)
            video.overlays[task] = folder / task / name / "overlay.mp4"
    return video


Seen = tuple[int, list[float], str, float, float | None]
"""A polyp in a frame: the frame's number, the box around it, its class, size and score."""


def find_polyps(folder: Path, name: str, times: np.ndarray) -> list[Finding]:
    """The polyps of a video in the folder of results that is named by its task, in the order in which they begin.

    Boxes of successive frames, which are shown at ``times``, are linked, of masks those around their regions.
    """
    if folder.name == "segmentation":
        seen = _regions(folder / name / "masks.json")
    else:
        seen = _detections(folder / name / "detections.csv", read_json(folder / "settings.json", dict)["threshold"])
    linker, polyps, classes = BoxLinker(), list[Finding](), dict[str, int]()
    for frame, found in groupby(seen, key=itemgetter(0)):
        first_near = np.searchsorted(times, times[frame] - MAX_GAP - 1e-3)  # to which times are rounded
        linker.frame, linker.max_gap = frame, frame - int(first_near)
        _, boxes, names, sizes, scores = zip(*found, strict=True)
        labels = torch.tensor([classes.setdefault(name, len(classes)) for name in names])
        numbers = linker.push({"box": torch.tensor(boxes), "label": labels})
        for number, name, size, score in zip(numbers, names, sizes, scores, strict=True):
            if number == len(polyps):
                polyps.append(Finding(folder.name, name, frame, frame))
            polyps[number].extend(frame, size, score)
    return polyps


def _regions(path: Path) -> Iterator[Seen]:
    for frame, name, mask in read_coco_masks(path):
        for region in regionprops(label(mask, connectivity=2)):
            if region.area >= MIN_SHARE * mask.size:
                y1, x1, y2, x2 = map(float, region.bbox)
                yield frame, [x1, y1, x2, y2], name, region.area, None


def _detections(path: Path, threshold: float) -> Iterator[Seen]:
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (score := float(row["score"])) >= threshold:
                x1, y1, x2, y2 = box = [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
                yield int(row["frame"]), box, row["class"], (x2 - x1) * (y2 - y1), score
