# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

from endofm_monai.data import ClipReadError
from endofm_monai.data.clip_files import frame_images
from endofm_monai.data.preparation import (
    SourceDataset,
    SourceVideo,
    check_layout,
    prepare_dataset,
    read_videos,
    run_command,
    subfolders,
)

__all__ = ["prepare"]

DATASET = SourceDataset(
    name="LDPolypVideo",
    licence="none stated: ask the owners before any other use than research",
    labels={1: "polyp"},
    published={"videos": 160, "frames": 40266},
)
SECTIONS = {"TrainValid": "training", "Test": "test"}


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare the annotated videos of LDPolypVideo: frames with boxes, in the published training and test part.

    Args:
        source: folder with ``TrainValid`` and ``Test``, or one of them.
        output: folder to write to.
        options: see :func:`endofm_monai.data.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.
    """
    root = check_layout(DATASET.name, source)
    folders = [(root / part, name) for part in SECTIONS for name in subfolders(root / part / "Images")]
    videos, problems = read_videos(read_video, folders)
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_video(part: Path, name: str) -> SourceVideo:
    """Read a video: ``Images/<name>/<frame>.jpg`` with ``Annotations/<name>/<frame>.txt``."""
    frames = frame_images(part / "Images" / name)
    boxes = [read_boxes(part / "Annotations" / name / f"{frame.stem}.txt") for frame in frames]
    return SourceVideo(
        name=f"{part.name}/{name}",
        image=frames,
        section=SECTIONS[part.name],
        fps=25,
        frame_labels={"box": boxes, "box_label": [[1] * len(frame) for frame in boxes]},
    )


def read_boxes(path: Path) -> list[list[int]]:
    """Read the boxes of a frame: a line with their number, then a line ``x1 y1 x2 y2`` for each."""
    try:
        count, *lines = path.read_text(encoding="utf-8-sig").split("\n")
        boxes = [[int(number) for number in line.split()] for line in lines if line.strip()]
        if len(boxes) != int(count) or any(len(box) != 4 or box[0] >= box[2] or box[1] >= box[3] for box in boxes):
            raise ValueError(f"expected their number, then x1 y1 x2 y2 a line, found {count} and {boxes}")
    except (OSError, ValueError) as error:
        raise ClipReadError(f"{path}: holds no readable boxes ({error})") from error
    return boxes


if __name__ == "__main__":
    run_command(prepare)
