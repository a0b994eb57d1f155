# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from monai.data.box_utils import box_iou

from endofm_monai.apps import Detections, read_blocks
from endofm_monai.data import open_clip
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import draw_boxes, open_video

__all__ = ["BOX_WRITERS", "VideoDetections", "link_boxes", "write_coco", "write_csv", "write_cvat", "write_overlay"]

LINK_IOU = 0.3  # of boxes in neighbouring frames that are of one track


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
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    size = ElementTree.SubElement(task, "original_size")
    texts = [(task, "name", video.name), (task, "size", str(len(video.frames))), (task, "mode", "interpolation")]
    for parent, tag, text in [*texts, (size, "width", str(info.width)), (size, "height", str(info.height))]:
        ElementTree.SubElement(parent, tag).text = text
    labels = ElementTree.SubElement(task, "labels")
    for name in video.class_names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, track in enumerate(link_boxes(video.likely())):
        name = video.class_names[track.label - 1]
        element = ElementTree.SubElement(root, "track", id=str(number), label=name, source="auto")
        for frame, box in track.boxes.items():
            _add_box(element, frame, box, outside=False)
        if frame + 1 < len(video.frames):
            _add_box(element, frame + 1, box, outside=True)
    ElementTree.indent(root)
    with atomic_path(video.folder / "annotations.xml") as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


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


@dataclass
class Track:
    """A polyp in consecutive frames."""

    label: int
    boxes: dict[int, torch.Tensor] = field(default_factory=dict)  # by frame, in order


def link_boxes(frames: Sequence[Detections]) -> list[Track]:
    """Link detections of one class to tracks: each box goes on with the track whose last box it overlaps most.

    Args:
        frames: detections of each frame, best first.

    Returns:
        tracks without gaps, in the order in which they begin.
    """
    tracks: list[Track] = []
    for index, frame in enumerate(frames):
        open_tracks = [track for track in tracks if index - 1 in track.boxes]
        for box, label, _ in zip(*_parts(frame), strict=True):
            overlap = [
                float(box_iou(box[None], track.boxes[index - 1][None])) if track.label == label else 0.0
                for track in open_tracks
            ]
            if overlap and max(overlap) >= LINK_IOU:
                track = open_tracks.pop(overlap.index(max(overlap)))
            else:
                track = Track(int(label))
                tracks.append(track)
            track.boxes[index] = box
    return tracks


def _parts(frame: Detections) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return frame["box"], frame["label"], frame["label_scores"]


def _add_box(track: ElementTree.Element, frame: int, box: torch.Tensor, outside: bool) -> None:
    sides = {side: f"{value:.2f}" for side, value in zip(("xtl", "ytl", "xbr", "ybr"), box.tolist(), strict=True)}
    flags = {"outside": str(int(outside)), "occluded": "0", "keyframe": "1", "z_order": "0"}
    ElementTree.SubElement(track, "box", {"frame": str(frame), **sides, **flags})
