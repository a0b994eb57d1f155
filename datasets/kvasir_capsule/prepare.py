# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from endofm_monai.data import find_clips
from endofm_monai.data.readers.paths import VIDEO_SUFFIXES, frame_images, has_suffix
from endofm_monai.preparation.prepare import prepare_dataset, run_from_command_line
from endofm_monai.preparation.record import clean_name, name_share, subfolders
from endofm_monai.preparation.sources import SourceDataset, SourceVideo, check_layout

__all__ = ["prepare"]

LICENCE = "research and education; anything else needs the owners' written permission"
VIDEOS = SourceDataset("Kvasir-Capsule", LICENCE, published={"clips": 1000, "frames": 158892}, clip_seconds=5)
CLASSES = (
    *("ampulla of vater", "angiectasia", "blood fresh", "blood hematin", "erosion", "erythema", "foreign body"),
    *(
        "ileocecal valve",
        "lymphangiectasia",
        "normal clean mucosa",
        "polyp",
        "pylorus",
        "reduced mucosal view",
        "ulcer",
    ),
)
IMAGES = SourceDataset(
    name="Kvasir-Capsule images",
    licence=LICENCE,
    labels=dict(enumerate(CLASSES)),
    published={"frames": 47238},
)


def prepare(source: str, output: str, part: str = "videos", **options: Any) -> str:
    """Prepare Kvasir-Capsule: its videos, cut into clips of 5 s, or its labeled frames.

    The published pre-training took a part of the clips that is not documented; this takes all.

    Args:
        source: folder with ``labelled_videos`` and ``unlabelled_videos``, in either spelling, or one of them; and for
            the frames ``labelled_images`` with a folder a class, and ``metadata.csv`` beside it for their boxes.
        output: folder to write to.
        part: ``"videos"``, which have no label; or ``"images"``, of which all those of a tenth of the videos are set
            aside for validation, and of another tenth for the test, chosen by the names of the videos.
        options: see :func:`endofm_monai.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.

    Raises:
        ValueError: when there is no such part, or a folder of images is of no known class.
    """
    if part not in ("videos", "images"):
        raise ValueError(f'part: expected "videos" or "images", found "{part}"')
    root = check_layout(VIDEOS.name, source)
    if part == "videos":
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and "videos" in folder.name)
        files = [clip for folder in folders for clip in find_clips(folder) if has_suffix(clip, VIDEO_SUFFIXES)]
        videos = [SourceVideo(clean_name(file.relative_to(root).with_suffix("").as_posix()), file) for file in files]
        return prepare_dataset(VIDEOS, videos, root, output, **options)
    boxes = read_boxes(root / "metadata.csv") if (root / "metadata.csv").exists() else None
    images = [
        read_image(image, class_of(root / "labelled_images" / folder), boxes)
        for folder in subfolders(root / "labelled_images")
        for image in frame_images(root / "labelled_images" / folder)
    ]
    return prepare_dataset(IMAGES, images, root, output, **options)


def read_image(image: Path, label: int, boxes: dict[str, list[list[int]]] | None) -> SourceVideo:
    """Make an item of a labeled frame, ``<video>_<frame>.jpg``."""
    share = name_share(image.stem.split("_")[0])
    found = [] if boxes is None else boxes.get(image.stem, [])
    return SourceVideo(
        name=clean_name(f"{image.parent.name}/{image.stem}"),
        image=[image],
        section="training" if share >= 0.2 else "validation" if share >= 0.1 else "test",
        labels={"label": label},
        frame_labels={} if boxes is None else {"box": [found], "box_label": [[label] * len(found)]},
    )


def class_of(folder: Path) -> int:
    """Recognize the class of a folder, however it is spelled: ``Blood - fresh`` is ``blood_fresh``."""
    name = " ".join(re.findall("[a-z]+", folder.name.lower()))
    if name not in CLASSES:
        raise ValueError(f"{folder}: expected a folder of one of the classes {', '.join(CLASSES)}")
    return CLASSES.index(name)


def read_boxes(table: Path) -> dict[str, list[list[int]]]:
    """Read the boxes of the frames: the extent of the four corners that are stated for some of them."""
    boxes = defaultdict(list)
    with open(table, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter=";"), 2):
            try:
                corners = [row[f"{axis}{corner}"] for axis in "xy" for corner in (1, 2, 3, 4)]
                if any(corners):
                    x, y = ([int(float(value)) for value in half] for half in (corners[:4], corners[4:]))
                    boxes[Path(row["filename"]).stem].append([min(x), min(y), max(x), max(y)])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{table}:{number}: holds no readable box ({error})") from error
    return boxes


if __name__ == "__main__":
    run_from_command_line(prepare)
