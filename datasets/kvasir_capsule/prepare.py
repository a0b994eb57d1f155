# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endofm_monai.data import IMAGE_SUFFIXES, list_files, natural_key
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, choose_part, split_by_name, subfolders, video_files
from endofm_monai.utils import read_csv

LICENCE = "research and education; anything else needs the owners' written permission"
CLASSES = (
    *("ampulla of vater", "angiectasia", "blood fresh", "blood hematin", "erosion", "erythema", "foreign body"),
    *("ileocecal valve", "lymphangiectasia", "normal clean mucosa", "polyp", "pylorus", "reduced mucosal view"),
    "ulcer",
)
PARTS = {
    "videos": SourceDataset("Kvasir-Capsule", LICENCE, published={"clips": 1000, "frames": 158892}, clip_seconds=5),
    "images": SourceDataset("Kvasir-Capsule images", LICENCE, dict(enumerate(CLASSES)), {"frames": 47238}),
}


def prepare(source: str, output: str, part: str = "videos", **options: Any) -> str:
    """Prepare Kvasir-Capsule: its videos, cut into clips of 5 s, or its labeled frames.

    The published pre-training took a part of the clips that is not documented; this takes all.

    Args:
        source: folder with ``labelled_videos`` and ``unlabelled_videos``, in either spelling, or one of them; and for
            the frames ``labelled_images`` with a folder a class, and ``metadata.csv`` beside it for their boxes.
        output: folder to write to.
        part: ``"videos"``, which have no label; or ``"images"``, of which all those of a tenth of the videos are set
            aside for validation, and of another tenth for the test, chosen by the names of the videos.
        options: see docs/datasets.md.
    """
    dataset, root = choose_part(PARTS, part), check_layout("Kvasir-Capsule", source)
    if part == "videos":
        folders = sorted(folder for folder in root.iterdir() if "videos" in folder.name)
        files = [file for folder in folders for file in video_files(folder)]
        videos = [SourceVideo(file.relative_to(root).with_suffix("").as_posix(), file) for file in files]
    else:
        boxes = read_boxes(root / "metadata.csv") if (root / "metadata.csv").exists() else None
        folders = [root / "labelled_images" / name for name in subfolders(root / "labelled_images")]
        videos = [video for folder in folders for video in read_class(folder, boxes)]
    return prepare_dataset(dataset, videos, root, output, **options)


def read_class(folder: Path, boxes: dict[str, list[list[int]]] | None) -> Iterator[SourceVideo]:
    """Make items of the frames of a class, ``<video>_<frame>.jpg``, also of an archive unpacked one folder deeper."""
    images = sorted(list_files(folder, IMAGE_SUFFIXES), key=lambda image: natural_key(image.name))
    if not images:
        raise ValueError(f"{folder}: holds no images")
    kind = " ".join(re.findall("[a-z]+", folder.name.lower()))  # of "Blood - fresh" or "blood_fresh"
    if kind not in CLASSES:
        raise ValueError(f"{folder}: expected a folder of one of the classes {', '.join(CLASSES)}")
    label = CLASSES.index(kind)
    for image in images:
        found = [] if boxes is None else boxes.get(image.stem, [])
        boxed: dict[str, list[Any]] = {} if boxes is None else {"box": [found], "box_label": [[label + 1] * len(found)]}
        name, video = f"{folder.name}/{image.stem}", image.stem.split("_")[0]
        labels = {"label": label, "group": video}
        yield SourceVideo(name, [image], split_by_name(video), labels=labels, frame_labels=boxed)


def read_boxes(table: Path) -> dict[str, list[list[int]]]:
    """Read the boxes of the frames: the extent of the four corners that are stated for some of them."""
    boxes = defaultdict(list)
    for number, row in enumerate(read_csv(table, delimiter=";"), 2):
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
