# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

from endofm_monai.data import find_clips
from endofm_monai.data.readers.paths import VIDEO_SUFFIXES, has_suffix
from endofm_monai.preparation.prepare import prepare_dataset, run_from_command_line
from endofm_monai.preparation.record import clean_name, subfolders
from endofm_monai.preparation.sources import (
    FrameBoxes,
    SourceDataset,
    SourceVideo,
    check_layout,
    read_boxed_video,
    read_videos,
)

__all__ = ["prepare"]

LICENCE = "none stated: ask the owners before any other use than research"
FRAMES = SourceDataset("LDPolypVideo", LICENCE, labels={1: "polyp"}, published={"videos": 160, "frames": 40266})
VIDEOS = SourceDataset(
    name="LDPolypVideo videos",
    licence=LICENCE,
    labels={0: "without polyps", 1: "with polyps"},
    published={"videos": 103, "frames": 861400},
    clip_seconds=5,
)
SECTIONS = {"TrainValid": "training", "Test": "test"}


def prepare(source: str, output: str, part: str = "frames", **options: Any) -> str:
    """Prepare LDPolypVideo: frames with boxes, in the published training and test part; or the videos without boxes.

    Args:
        source: folder with ``TrainValid`` and ``Test``, or ``videos with polyps`` and ``videos without polyps``, or
            some of them.
        output: folder to write to.
        part: ``"frames"``, with boxes; or ``"videos"``, which state only whether they show polyps somewhere, cut into
            clips of 5 s for pre-training.
        options: see :func:`endofm_monai.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.

    Raises:
        ValueError: when there is no such part.
    """
    if part not in ("frames", "videos"):
        raise ValueError(f'part: expected "frames" or "videos", found "{part}"')
    root = check_layout(FRAMES.name, source)
    if part == "frames":
        folders = [(root / split, name) for split in SECTIONS for name in subfolders(root / split / "Images")]
        videos, problems = read_videos(read_video, folders)
        return prepare_dataset(FRAMES, videos, root, output, problems=problems, **options)
    videos = [
        SourceVideo(clean_name(path.relative_to(root).with_suffix("").as_posix()), path, labels={"label": label})
        for label, kind in VIDEOS.labels.items()
        for path in find_clips(root / f"videos {kind}")
        if has_suffix(path, VIDEO_SUFFIXES)
    ]
    return prepare_dataset(VIDEOS, videos, root, output, **options)


def read_video(part: Path, name: str) -> SourceVideo:
    """Read a video: ``Images/<name>/<frame>.jpg`` with ``Annotations/<name>/<frame>.txt``."""
    return read_boxed_video(
        f"{part.name}/{name}",
        part / "Images" / name,
        part / "Annotations" / name,
        ".txt",
        read_boxes,
        section=SECTIONS[part.name],
        fps=25,
    )


def read_boxes(path: Path) -> FrameBoxes:
    """Read the boxes of a frame: a line with their number, then a line ``x1 y1 x2 y2`` for each."""
    count, *lines = path.read_text(encoding="utf-8-sig").split("\n")
    boxes = [[float(number) for number in line.split()] for line in lines if line.strip()]
    if len(boxes) != int(count) or any(len(box) != 4 for box in boxes):
        raise ValueError(f"expected their number, then x1 y1 x2 y2 a line, found {count} and {boxes}")
    return FrameBoxes(boxes, [1] * len(boxes))


if __name__ == "__main__":
    run_from_command_line(prepare)
