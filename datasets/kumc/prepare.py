# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
    name="KUMC",
    licence="see the owners' page",
    labels={1: "adenomatous", 2: "hyperplastic"},
    published={"videos": 53, "frames": 19832},
)
SECTIONS = {"train2019": "training", "val2019": "validation", "test2019": "test"}
# as the class is spelled in the annotations
CLASSES = {"adenomatous": 1, "adenoma": 1, "ad": 1, "hyperplastic": 2, "hyperplasia": 2, "hp": 2}


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare KUMC: frames with boxes of two classes, in the published training, validation and test part.

    Args:
        source: folder with ``train2019``, ``val2019`` and ``test2019``.
        output: folder to write to.
        options: see :func:`endofm_monai.data.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.
    """
    root = check_layout(DATASET.name, source)
    folders = [(root / part, name) for part in SECTIONS for name in subfolders(root / part / "Image")]
    videos, problems = read_videos(read_video, folders)
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_video(part: Path, name: str) -> SourceVideo:
    """Read a video: ``Image/<name>/<frame>.jpg`` with ``Annotation/<name>/<frame>.xml``."""
    frames = frame_images(part / "Image" / name)
    found = [read_boxes(part / "Annotation" / name / f"{frame.stem}.xml") for frame in frames]
    return SourceVideo(
        name=f"{part.name}/{name}",
        image=frames,
        section=SECTIONS[part.name],
        frame_labels={"box": [boxes for boxes, _ in found], "box_label": [labels for _, labels in found]},
    )


def read_boxes(path: Path) -> tuple[list[list[int]], list[int]]:
    """Read a Pascal-VOC file, whose boxes are clamped to the frame; those that are then empty are left out."""
    try:
        tree = ElementTree.parse(path).getroot()
        size = [int(tree.findtext(f"size/{side}", "")) for side in ("width", "height")]
        boxes, labels = [], []
        for item in tree.iter("object"):
            corners = [float(item.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")]
            box = [round(min(max(value, 0), size[axis % 2] - 1)) for axis, value in enumerate(corners)]
            label = item.findtext("name", "").strip().lower()
            if label not in CLASSES:
                raise ValueError(f"expected a class of {', '.join(CLASSES)}, found '{label}'")
            if box[0] < box[2] and box[1] < box[3]:
                boxes.append(box)
                labels.append(CLASSES[label])
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ClipReadError(f"{path}: holds no readable boxes ({error})") from error
    return boxes, labels


if __name__ == "__main__":
    run_command(prepare)
