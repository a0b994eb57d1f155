# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from endofm_monai.data import ClipReadError, clip_read_errors, frame_images
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, read_videos, subfolders
from endofm_monai.utils import read_text

PUBLISHED = {"videos": 45, "clips": 580, "frames": 90444}
SECONDS = 150  # as many frames as of the other sets: these are one second apart
DATASET = SourceDataset("CholecT45", "CC BY-NC-SA 4.0", published=PUBLISHED, clip_seconds=SECONDS)


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare CholecT45: frames at 1 a second, cut into clips of 150, with lists of the actions in each frame.

    Args:
        source: folder with ``data``, ``triplet``, ``instrument``, ``verb`` and ``target``.
        output: folder to write to.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    videos, problems = read_videos(read_video, [(root, name) for name in subfolders(root / "data")])
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_video(root: Path, name: str) -> SourceVideo:
    """Read ``data/<name>/<index>.png`` with ``<kind>/<name>.txt``: a frame's index a line, and 0 or 1 a label."""
    frames = frame_images(root / "data" / name)
    if strange := [frame for frame in frames if not frame.stem.isdecimal()]:
        raise ClipReadError(f"{strange[0]}: must be named by the number of its frame, as 000001.png")
    labels = {}
    for kind in ("triplet", "instrument", "verb", "target"):
        path = root / kind / f"{name}.txt"
        with clip_read_errors(path, "is no readable table of labels"):
            rows = [[int(value) for value in line.split(",")] for line in read_text(path).splitlines() if line.strip()]
            present = {frame: [label for label, value in enumerate(values) if value == 1] for frame, *values in rows}
        if missing := [frame.name for frame in frames if int(frame.stem) not in present]:
            raise ClipReadError(f"{path}: has no line for {len(missing)} frames, as {missing[0]}")
        labels[kind] = [present[int(frame.stem)] for frame in frames]
    return SourceVideo(name, frames, fps=1, frame_labels=labels)


if __name__ == "__main__":
    run_from_command_line(prepare)
