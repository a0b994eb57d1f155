# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from endofm_monai.preparation import SourceDataset, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import FrameBoxes, check_layout, read_boxed_videos

LABELS = {1: "adenomatous", 2: "hyperplastic"}
DATASET = SourceDataset("KUMC", "see the owners' page", LABELS, {"videos": 53, "frames": 19832})
SECTIONS = {"train2019": "training", "val2019": "validation", "test2019": "test"}
# as the class is spelled in the annotations
CLASSES = {"adenomatous": 1, "adenoma": 1, "ad": 1, "hyperplastic": 2, "hyperplasia": 2, "hp": 2}


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare KUMC: frames with boxes of two classes, in the published training, validation and test part.

    Args:
        source: folder with ``train2019``, ``val2019`` and ``test2019``.
        output: folder to write to.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    videos, problems = read_boxed_videos(root, SECTIONS, "Image", "Annotation", ".xml", read_boxes)
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_boxes(path: Path) -> FrameBoxes:
    """Read a Pascal-VOC file."""
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    if tree.tag != "annotation":  # of which all frames would be without polyps
        raise ValueError(f"expected <annotation>, as Pascal VOC has it, found <{tree.tag}>")
    width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    boxes, labels = [], []
    for item in tree.iter("object"):
        label = item.findtext("name", "").strip().lower()
        if label not in CLASSES:
            raise ValueError(f"expected a class of {', '.join(CLASSES)}, found '{label}'")
        boxes.append([float(item.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")])
        labels.append(CLASSES[label])
    return FrameBoxes(boxes, labels, (width, height) if width or height else None)


if __name__ == "__main__":
    run_from_command_line(prepare)
