# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endofm_monai.data.clip_files import natural_key
from endofm_monai.utils import atomic_path

__all__ = ["datalist_from_coco"]


def datalist_from_coco(
    files: Mapping[str, str | os.PathLike], class_names: Sequence[str], output: str | os.PathLike
) -> dict[str, list[dict[str, Any]]]:
    """Write a datalist from annotations in COCO's format.

    The images of one folder are the frames of one video, in natural order of their names; of an image in no folder the
    whole file is one video.

    Args:
        files: annotation file by section, e.g. ``{"training": "train.json", "validation": "val.json"}``; their
            ``file_name`` are relative to the dataset's folder.
        class_names: names of the classes in the order of their labels, which count from 1.
        output: datalist to write.

    Returns:
        what was written; check it with :func:`endofm_monai.data.load_box_datalist`.

    Raises:
        ValueError: when a file is no such JSON, a box is of an unknown image, or of a class that is not in
            ``class_names``; the message names the file.
    """
    datalist = {section: _read_videos(Path(path), class_names) for section, path in files.items()}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(datalist), encoding="utf-8")
    return datalist


def _read_videos(path: Path, class_names: Sequence[str]) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        images = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = [
            (a["image_id"], a["category_id"], [float(side) for side in a["bbox"]]) for a in content["annotations"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is no JSON in COCO's format ({type(error).__name__}: {error}).") from error
    boxes: dict[str, list] = defaultdict(list)
    labels: dict[str, list] = defaultdict(list)
    for image, category, (x, y, width, height) in annotations:
        if image not in images:
            raise ValueError(f"{path}: has a box of the image {image!r}, which it does not list.")
        if names.get(category) not in class_names:
            expected = ", ".join(class_names)
            raise ValueError(f"{path}: has a box of the class {names.get(category)!r}; expected one of {expected}.")
        boxes[images[image]].append([x, y, x + width, y + height])
        labels[images[image]].append(list(class_names).index(names[category]) + 1)
    videos: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images.values(), key=natural_key):
        videos[os.path.dirname(name)].append(name)
    return [
        {
            "image": frames,
            "box": [boxes[frame] for frame in frames],
            "box_label": [labels[frame] for frame in frames],
            "video": video or path.stem,
        }
        for video, frames in videos.items()
    ]
