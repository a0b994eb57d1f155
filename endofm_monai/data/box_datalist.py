# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from endofm_monai.data.datalist import load_datalist
from endofm_monai.data.naming import name_clips

__all__ = ["key_frames", "load_box_datalist"]


def load_box_datalist(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike,
    section: str = "training",
    num_classes: int = 1,
) -> list[dict[str, Any]]:
    """List videos with boxes, as :func:`endofm_monai.data.load_datalist`, and check every box before any training.

    An item has ``image``, and ``box`` and ``box_label`` with a list a frame: of boxes ``[x1, y1, x2, y2]`` in pixels of
    the frame, x to the right and y downwards, and of their classes from 1 to ``num_classes``; both empty where nothing
    is to be seen. Sides may lie beyond the frame: they are clipped when it is loaded.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file.
        section: the list to take from it.
        num_classes: number K of classes.

    Returns:
        the items, with absolute paths, ``name`` and ``video``, see :func:`endofm_monai.data.name_clips`.

    Raises:
        FileNotFoundError: as ``load_datalist``.
        ValueError: as ``load_datalist``, and when a frame's boxes and labels differ in number, a box is not finite, is
            inverted or has no area, or a label is no class. The message names datalist, video, frame and box.
    """
    items = name_clips(load_datalist(dataset_dir, datalist, section, required=("box", "box_label")), dataset_dir)
    for index, item in enumerate(items):
        where = f"{datalist}: {section}[{index}] ({item['name']})"
        frames = len(item["box"])
        if len(item["box_label"]) != frames or (not isinstance(item["image"], str) and len(item["image"]) != frames):
            raise ValueError(f"{where}: needs a list of boxes and of labels for each frame, found {frames} and others.")
        for frame, (boxes, labels) in enumerate(zip(item["box"], item["box_label"], strict=True)):
            if len(boxes) != len(labels):
                raise ValueError(f"{where}, frame {frame}: has {len(boxes)} boxes, but {len(labels)} labels.")
            for box, label in zip(boxes, labels, strict=True):
                _check(box, label, num_classes, f"{where}, frame {frame}")
    return items


def key_frames(items: Sequence[dict[str, Any]], interval: int = 1) -> list[dict[str, Any]]:
    """Give one item for each key frame of videos: the video's item and ``frame_index``.

    Args:
        items: videos of :func:`load_box_datalist`.
        interval: frames from one key frame of a video to the next.
    """
    return [{**item, "frame_index": index} for item in items for index in range(0, len(item["box"]), interval)]


def _check(box: Any, label: Any, num_classes: int, where: str) -> None:
    if len(box) != 4 or not all(isinstance(side, (int, float)) and math.isfinite(side) for side in box):
        raise ValueError(f"{where}: a box needs four finite numbers [x1, y1, x2, y2], found {box}.")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{where}: the box {box} is inverted or has no area; expected x1 < x2 and y1 < y2.")
    if label not in range(1, num_classes + 1):
        raise ValueError(f"{where}: the label {label!r} is no class; expected 1 to {num_classes}.")
