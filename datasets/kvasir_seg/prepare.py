# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from endofm_monai.data import picture_size
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import boxes_of_class, check_layout, images_by_stem, split_by_name, split_stills
from endofm_monai.utils import read_json

LICENCE = "CC BY 4.0 as part of HyperKvasir"
DATASET = SourceDataset("Kvasir-SEG", LICENCE, {1: "polyp"}, {"videos": 1000, "frames": 1000}, mode="copy")


def prepare(source: str, output: str, splits: str | None = None, **options: Any) -> str:
    """Prepare Kvasir-SEG: stills with masks and boxes, each a clip of one frame.

    No split is published. Without ``splits`` a tenth each is set aside for validation and test, by the images' names.

    Args:
        source: folder with ``images``, ``masks`` and ``kavsir_bboxes.json``.
        output: folder to write to.
        splits: CSV file with the columns ``name`` and ``section``, such as ``splits.csv`` beside this script, which
            keeps pictures of the same place, the ``group`` of its third column, together; images that it does not name
            are left out.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    table = root / "kavsir_bboxes.json"
    boxes = read_json(table, dict)
    images, masks = (images_by_stem(root / folder) for folder in ("images", "masks"))
    if unknown := images.keys() - boxes.keys():
        raise ValueError(f"{table}: has no boxes for {len(unknown)} images, as {min(unknown)}")
    listed, problems = split_stills(images, splits, split_by_name)
    videos = []
    for name, (section, labels) in listed.items():
        image = images[name]
        try:
            found = [[each[side] for side in ("xmin", "ymin", "xmax", "ymax")] for each in boxes[name]["bbox"]]
            stated = boxes[name]["width"], boxes[name]["height"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{table}: holds no readable boxes of {name} ({error!r})") from error
        if (size := picture_size(image)) != stated:
            problems.append(f"{image}: has {size}, but its boxes are of {stated} pixels; take the file as published")
            continue
        mask = masks.get(name, root / "masks" / image.name)
        boxed = boxes_of_class([found], 1)
        videos.append(SourceVideo(name, [image], section, labels=labels, frame_labels=boxed, masks=[mask]))
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
