# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from endofm_monai.data import open_clip
from endofm_monai.formats.annotations import Annotations, track_from_boxes
from endofm_monai.formats.cvat_xml import write_cvat_xml
from endofm_monai.formats.video import open_video
from endofm_monai.inferers.detection import Detections, read_blocks
from endofm_monai.inferers.linking import link_boxes
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import draw_boxes

__all__ = ["BOX_WRITERS", "VideoDetections", "write_coco", "write_csv", "write_cvat", "write_overlay"]


@dataclass(frozen=True)
class VideoDetections:
    """What the writers know of a video.

    Args:
        folder: where to write.
        name: name of the video.
        source: the video itself: what :func:`endofm_monai.data.open_clip` opens.
        frames: detections of each frame, in pixels of the frame.
        class_names: names of the classes, from 1 on.
        threshold: smallest score of a detection for pictures and tracks; tables have all.
    """

    folder: Path
    name: str
    source: Any
    frames: Sequence[Detections]
    class_names: Sequence[str]
    threshold: float

    def likely(self) -> list[Detections]:
        """The detections of each frame with at least the score ``threshold``."""
        kept = [frame["label_scores"] >= self.threshold for frame in self.frames]
        return [{key: part[k] for key, part in f.items()} for f, k in zip(self.frames, kept, strict=True)]


def write_coco(video: VideoDetections) -> None:
    """Write ``detections.json``, COCO's results format: ``image_id`` is the frame's number, counted from 1."""
    results = [
        {
            "image_id": number,
            "category_id": int(label),
            "bbox": [round(float(side), 2) for side in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": round(float(score), 5),
        }
        for number, frame in enumerate(video.frames, start=1)
        for box, label, score in zip(*_parts(frame), strict=True)
    ]
    with atomic_path(video.folder / "detections.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")


def write_csv(video: VideoDetections) -> None:
    """Write ``detections.csv``, a row for each detection; frames count from 0."""
    with (
        atomic_path(video.folder / "detections.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["video", "frame", "x1", "y1", "x2", "y2", "label", "class", "score"])
        for index, frame in enumerate(video.frames):
            for box, label, score in zip(*_parts(frame), strict=True):
                sides = [f"{side:.2f}" for side in box.tolist()]
                name = video.class_names[int(label) - 1]
                writer.writerow([video.name, index, *sides, int(label), name, f"{score:.5f}"])


def write_cvat(video: VideoDetections) -> None:
    """Write ``annotations.xml``, CVAT's format "CVAT for video 1.1": a track for each polyp, to be corrected there."""
    with open_clip(video.source) as reader:
        info = reader.probe()
    tracks = [
        track_from_boxes(track, number, video.class_names, len(video.frames))
        for number, track in enumerate(link_boxes(video.likely()))
    ]
    annotations = Annotations(video.name, len(video.frames), info.width, info.height, video.class_names, tracks)
    write_cvat_xml(annotations, video.folder / "annotations.xml")


def write_overlay(video: VideoDetections) -> None:
    """Write ``overlay.mp4``: the frames with their detections."""
    with open_clip(video.source) as reader:
        fps = reader.probe().fps
    detections = iter(video.likely())
    with open_video(video.folder / "overlay.mp4", fps) as write:
        for block in read_blocks(video.source, block=8):
            for frame in block.permute(1, 2, 3, 0).numpy():
                write(draw_boxes(frame, *_parts(next(detections)), video.class_names))


BOX_WRITERS: dict[str, Callable[[VideoDetections], None]] = {
    "coco": write_coco,
    "csv": write_csv,
    "cvat": write_cvat,
    "overlay": write_overlay,
}


def _parts(frame: Detections) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return frame["box"], frame["label"], frame["label_scores"]
