# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import csv
from pathlib import Path
from typing import Any

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, share_of
from endofm_monai.utils import read_text

LICENCE = "none stated for the collection; its sources have their own"
DATASET = SourceDataset("PolypDiag", LICENCE, {0: "normal", 1: "abnormal"}, {"videos": 253, "frames": 485561})
NOTE = "The published protocol: the best epoch is selected on this validation list, which is its test."


def prepare(source: str, output: str, validation_share: float = 0.2, **options: Any) -> str:
    """Prepare PolypDiag: videos with a class each.

    The published lists have no validation part: it is taken from the training list, and the published validation list
    is the test. ``datalist_published.json`` has the published protocol, which selects the best epoch on its test.

    Args:
        source: folder with ``videos`` and ``splits``.
        output: folder to write to.
        validation_share: share of the training list, of each class, that becomes the validation part.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    lists = {"training": read_list(root / "splits" / "train.txt"), "test": read_list(root / "splits" / "val.txt")}
    validation = set()
    for label in DATASET.labels:
        names = sorted((name for name, each in lists["training"].items() if each == label), key=share_of)
        validation |= set(names[: round(validation_share * len(names))])
    videos = []
    for part, listed in lists.items():
        for path, label in listed.items():
            name = f"{part}/{Path(path).with_suffix('').as_posix()}"  # in both lists, it is reported as a duplicate
            section = "validation" if part == "training" and path in validation else part
            videos.append(SourceVideo(name, root / "videos" / path, section, labels={"label": label}))
    published: dict[str, Any] = {"note": NOTE, "training": [], "validation": []}
    for video in videos:
        published["validation" if video.section == "test" else "training"].append(video.name)
    return prepare_dataset(DATASET, videos, root, output, datalists={"datalist_published.json": published}, **options)


def read_list(path: Path) -> dict[str, int]:
    """Read a list with a line ``path,label`` a video."""
    listed: dict[str, int] = {}
    for number, cells in enumerate(csv.reader(read_text(path).splitlines()), 1):
        if line := ",".join(cells).strip():
            name, comma, label = line.rpartition(",")
            if not comma or label.strip() not in ("0", "1"):
                raise ValueError(f"{path}:{number}: expected path,label with the label 0 or 1, found '{line}'")
            if listed.setdefault(name.strip(), int(label)) != int(label):
                raise ValueError(f"{path}:{number}: lists {name.strip()} with two labels")
    return listed


if __name__ == "__main__":
    run_from_command_line(prepare)
