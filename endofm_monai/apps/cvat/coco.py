# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endofm_monai.data.mask_runs import encode_runs, mask_from_points
from endofm_monai.utils import atomic_path

__all__ = ["write_coco_annotations"]


def write_coco_annotations(
    items: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    frame_sizes: Sequence[tuple[int, int]],
    path: str | os.PathLike,
) -> None:
    """Write the boxes, outlines and tags of items in COCO's format.

    Videos are listed under ``videos``, as in COCO's descendants for video, and each image has its ``video_id`` and
    ``frame_index``. What COCO has no place for stands in an annotation's ``attributes``, and in an image's ``tags``.

    Args:
        items: see :func:`endofm_monai.apps.cvat.items_from_annotations`.
        class_names: names of the classes, from 1 on.
        frame_sizes: height and width of the frames of each item, in pixels.
        path: the file; :func:`endofm_monai.data.datalist_from_coco` reads it again with ``outlines=True``.
    """
    videos: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item, (height, width) in zip(items, frame_sizes, strict=True):
        is_file = isinstance(item["image"], str)
        videos.append(
            {"id": len(videos) + 1, "name": item["video"], **({"file_name": item["image"]} if is_file else {})}
        )
        for frame in range(max(len(item.get(key, ())) for key in ("box", "outline", "tag"))):
            name = f"{item['image']}/frame_{frame:06d}.png" if is_file else item["image"][frame]
            image = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
            images.append({**image, "video_id": len(videos), "frame_index": frame, "tags": _at(item, "tag", frame)})
            boxes, labels = _at(item, "box", frame), _at(item, "box_label", frame)
            infos = _at(item, "box_info", frame) or [{}] * len(boxes)
            shapes = [
                (label, {"bbox": _bbox(box)}, info) for box, label, info in zip(boxes, labels, infos, strict=True)
            ]
            for outline in _at(item, "outline", frame):
                info = {name: value for name, value in outline.items() if name not in ("label", "polygon", "mask")}
                shapes.append((outline["label"], _segmentation(outline, height, width), info))
            for label, shape, info in shapes:
                head = {"id": len(annotations) + 1, "image_id": len(images), "category_id": label, "iscrowd": 0}
                area = round(shape["bbox"][2] * shape["bbox"][3], 6)
                annotations.append({**head, "segmentation": [], "area": area, **shape, "attributes": info})
    content = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)],
        "videos": videos,
        "images": images,
        "annotations": annotations,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _at(item: Mapping[str, Any], key: str, frame: int) -> list[Any]:
    return item[key][frame] if key in item else []


def _bbox(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], round(box[2] - box[0], 6), round(box[3] - box[1], 6)]


def _segmentation(outline: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    if "polygon" in outline:
        points = np.reshape(outline["polygon"], (-1, 2))
        corners = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
        return {"segmentation": [outline["polygon"]], "bbox": _bbox(corners)}
    mask = mask_from_points(outline["mask"], height, width)
    runs = {"size": [height, width], "counts": encode_runs(mask.ravel(order="F"))}
    return {"segmentation": runs, "bbox": list(outline["mask"][:4]), "area": int(mask.sum()), "iscrowd": 1}
