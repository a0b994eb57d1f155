# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from endofm_monai.preparation.prepare import prepare_dataset, run_from_command_line
from endofm_monai.preparation.record import clean_name, name_share
from endofm_monai.preparation.sources import SourceDataset, SourceVideo, check_layout

__all__ = ["prepare"]

DATASET = SourceDataset(
    name="PolypDiag",
    licence="none stated for the collection; its sources have their own",
    labels={0: "normal", 1: "abnormal"},
    published={"videos": 253, "frames": 485561},
)


def prepare(source: str, output: str, validation_share: float = 0.2, **options: Any) -> str:
    """Prepare PolypDiag: videos with a class each.

    The published lists have no validation part: it is taken from the training list, and the published validation list
    is the test. ``datalist_published.json`` has the published protocol, which selects the best epoch on its test.

    Args:
        source: folder with ``videos`` and ``splits``.
        output: folder to write to.
        validation_share: share of the training list, of each class, that becomes the validation part.
        options: see :func:`endofm_monai.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.

    Raises:
        ValueError: when a line of a list is no path and label.
    """
    root = check_layout(DATASET.name, source)
    training, test = (read_list(root / "splits" / f"{part}.txt") for part in ("train", "val"))
    validation = set()
    for label in DATASET.labels:
        names = sorted((name for name in training if training[name] == label), key=name_share)
        validation |= set(names[: round(validation_share * len(names))])
    videos = [
        SourceVideo(
            name=video_name(path, part),
            image=root / "videos" / path,
            section="test" if part == "test" else "validation" if path in validation else "training",
            labels={"label": label},
        )
        for part, listed in (("training", training), ("test", test))
        for path, label in listed.items()
    ]
    names_of: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        names_of["validation" if video.section == "test" else "training"].append(video.name)
    published = {
        "note": "The published protocol: the best epoch is selected on this validation list, which is its test."
    }
    return prepare_dataset(
        DATASET, videos, root, output, datalists={"datalist_published.json": {**published, **names_of}}, **options
    )


def read_list(path: Path) -> dict[str, int]:
    """Read a list with a line ``path,label`` a video."""
    listed = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            name, comma, label = line.strip().rpartition(",")
            if not comma or label.strip() not in ("0", "1"):
                raise ValueError(f"{path}:{number}: expected path,label with the label 0 or 1, found '{line}'")
            listed[name.strip()] = int(label)
    return listed


def video_name(path: str, part: str) -> str:
    """Name a video by its list and file: a video in both lists is so prepared twice, and reported as a duplicate."""
    return f"{part}/{clean_name(Path(path).with_suffix('').as_posix())}"


if __name__ == "__main__":
    run_from_command_line(prepare)
