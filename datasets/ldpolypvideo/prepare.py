# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import FrameBoxes, check_layout, choose_part, read_boxed_videos, video_files
from endofm_monai.utils import read_text

LICENCE = "none stated: ask the owners before any other use than research"
KINDS = {0: "without polyps", 1: "with polyps"}
PARTS = {
    "frames": SourceDataset("LDPolypVideo", LICENCE, {1: "polyp"}, {"videos": 160, "frames": 40266}),
    "videos": SourceDataset("LDPolypVideo videos", LICENCE, KINDS, {"videos": 103, "frames": 861400}, clip_seconds=5),
}
SECTIONS = {"TrainValid": "training", "Test": "test"}


def prepare(source: str, output: str, part: str = "frames", **options: Any) -> str:
    """Prepare LDPolypVideo: frames with boxes, in the published training and test part; or the videos without boxes.

    Args:
        source: folder with ``TrainValid`` and ``Test``, or ``videos with polyps`` and ``videos without polyps``, or
            some of them.
        output: folder to write to.
        part: ``"frames"``, with boxes; or ``"videos"``, which state only whether they show polyps somewhere, cut into
            clips of 5 s for pre-training.
        options: see docs/datasets.md.
    """
    dataset, root = choose_part(PARTS, part), check_layout("LDPolypVideo", source)
    if part == "frames":
        videos, problems = read_boxed_videos(root, SECTIONS, "Images", "Annotations", ".txt", read_boxes, fps=25)
        return prepare_dataset(dataset, videos, root, output, problems=problems, **options)
    videos = [
        SourceVideo(path.relative_to(root).with_suffix("").as_posix(), path, labels={"label": label})
        for label, kind in KINDS.items()
        for path in video_files(root / f"videos {kind}")
    ]
    return prepare_dataset(dataset, videos, root, output, **options)


def read_boxes(path: Path) -> FrameBoxes:
    """Read the boxes of a frame: a line with their number, then a line ``x1 y1 x2 y2`` for each."""
    count, *lines = read_text(path).splitlines()
    boxes = [[float(number) for number in line.split()] for line in lines if line.strip()]
    if len(boxes) != int(count) or any(len(box) != 4 for box in boxes):
        raise ValueError(f"expected their number, then x1 y1 x2 y2 a line, found {count} and {boxes}")
    return FrameBoxes(boxes, [1] * len(boxes))


if __name__ == "__main__":
    run_from_command_line(prepare)
