# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.measure import label as label_regions

from endofm_monai.data.mask_runs import draw_polygon, mask_from_points, mask_points
from endofm_monai.data.preparation.masks import read_mask
from endofm_monai.utils import atomic_path

__all__ = ["outlines_from_masks", "write_masks"]


def write_masks(
    item: Mapping[str, Any], dataset_dir: str | os.PathLike, folder: str, height: int, width: int
) -> dict[str, Any]:
    """Write the outlines of an item as mask files, 0 and 255, which the segmentation bundle trains on.

    Args:
        item: item with ``outline``, see :func:`endofm_monai.apps.cvat.items_from_annotations`.
        dataset_dir: the dataset's folder.
        folder: the folder in it for the files; they are named after the frame images, or by the frame's number.
        height: rows of a frame in pixels.
        width: columns of a frame in pixels.

    Returns:
        the item with ``mask``, a path for each frame.

    Raises:
        ValueError: when two frame images have one name, or ``folder`` lies outside ``dataset_dir``.
    """
    if not Path(dataset_dir, folder).resolve().is_relative_to(Path(dataset_dir).resolve()):
        raise ValueError(f"{folder}: lies outside the dataset's folder {dataset_dir}; masks are not written there.")
    frames = item["outline"]
    names = [f"{frame:06d}" for frame in range(len(frames))]
    if not isinstance(item["image"], str):
        names = [Path(path).stem for path in item["image"]]
    if len(set(names)) < len(names):
        raise ValueError(f"{item['video']}: has two frames of one name, so that their masks would be one file.")
    paths = [f"{folder}/{name}.png" for name in names]
    for path, outlines in zip(paths, frames, strict=True):
        mask = np.zeros((height, width), bool)
        for outline in outlines:
            if "mask" in outline:
                mask |= mask_from_points(outline["mask"], height, width)
            else:
                mask |= draw_polygon(outline["polygon"], height, width)
        with atomic_path(Path(dataset_dir, path)) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
    return {**item, "mask": paths}


def outlines_from_masks(masks: Sequence[str | os.PathLike], label: int = 1) -> list[list[dict[str, Any]]]:
    """Give the separate regions of mask files as the ``outline`` of an item: exact, but to be edited as pixels.

    Args:
        masks: a file for each frame.
        label: class of the regions.

    Returns:
        for each frame its regions.

    Raises:
        ClipReadError: when a file is no mask.
    """
    frames = []
    for path in masks:
        regions = label_regions(read_mask(Path(path)), connectivity=2)
        numbers = range(1, regions.max() + 1)
        frames.append([{"label": label, "mask": mask_points(regions == number)} for number in numbers])
    return frames
