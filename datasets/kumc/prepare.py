# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import FrameBoxes, check_layout, read_boxed_video, read_videos, subfolders

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
        options: see :func:`endofm_monai.preparation.prepare_dataset`.
    """
    root = check_layout(DATASET.name, source)
    folders = [(root / part, name) for part in SECTIONS for name in subfolders(root / part / "Image")]
    videos, problems = read_videos(read_video, folders)
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_video(part: Path, name: str) -> SourceVideo:
    """Read ``Image/<name>/<frame>.jpg`` with ``Annotation/<name>/<frame>.xml``."""
    images, annotations = part / "Image" / name, part / "Annotation" / name
    section = SECTIONS[part.name]
    return read_boxed_video(f"{part.name}/{name}", images, annotations, ".xml", read_boxes, section=section)


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
