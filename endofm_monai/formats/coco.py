# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endofm_monai.data.readers.paths import natural_key
from endofm_monai.formats.masks import coco_mask, mask_from_coco, mask_from_points, mask_points
from endofm_monai.utils import atomic_path

__all__ = ["datalist_from_coco", "write_coco_annotations"]


def datalist_from_coco(
    files: Mapping[str, str | os.PathLike],
    class_names: Sequence[str],
    output: str | os.PathLike,
    outlines: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Write a datalist from annotations in COCO's format.

    The images of one folder are the frames of one video, in natural order of their names; of an image in no folder the
    whole file is one video. A file that lists ``videos`` says itself which image is which frame of which video.

    Args:
        files: annotation file by section, e.g. ``{"training": "train.json", "validation": "val.json"}``; their
            ``file_name`` are relative to the dataset's folder.
        class_names: names of the classes in the order of their labels, which count from 1.
        output: datalist to write.
        outlines: read masks and polygons too: an annotation with a ``segmentation`` becomes an ``outline`` of its frame
            and no box, and what else is known goes to ``box_info`` and ``tag``; see
            :func:`endofm_monai.apps.cvat.items_from_annotations`. By default every annotation is a box.

    Returns:
        what was written; check it with :func:`endofm_monai.data.load_box_datalist`.

    Raises:
        ValueError: when a file is no such JSON, a box is of an unknown image, or of a class that is not in
            ``class_names``; the message names the file.
    """
    datalist = {section: _read_videos(Path(path), class_names, outlines) for section, path in files.items()}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(datalist), encoding="utf-8")
    return datalist


def _read_videos(path: Path, class_names: Sequence[str], outlines: bool) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        videos = _group(content, path)
        annotations = [
            (a["image_id"], a["category_id"], [float(side) for side in a["bbox"]], a.get("segmentation"), a)
            for a in content["annotations"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is no JSON in COCO's format ({type(error).__name__}: {error}).") from error
    found: dict[str, dict[Any, list]] = {key: defaultdict(list) for key in ("box", "box_label", "box_info", "outline")}
    for image, category, (x, y, width, height), segmentation, annotation in annotations:
        if image not in images:
            raise ValueError(f"{path}: has a box of the image {image!r}, which it does not list.")
        if names.get(category) not in class_names:
            expected = ", ".join(class_names)
            raise ValueError(f"{path}: has a box of the class {names.get(category)!r}; expected one of {expected}.")
        label = list(class_names).index(names[category]) + 1
        if outlines and segmentation:
            found["outline"][image] += _outlines(segmentation, label, annotation.get("attributes", {}), path)
        else:  # rounded, so that far sides have no more digits than they were written with
            found["box"][image].append([x, y, round(x + width, 6), round(y + height, 6)])
            found["box_label"][image].append(label)
            found["box_info"][image].append(annotation.get("attributes", {}))
    items = []
    for video, frames in videos:
        keys = found if outlines else ("box", "box_label")
        items.append({**video, **{key: [found[key][frame] for frame in frames] for key in keys}})
        if outlines:
            items[-1]["tag"] = [images[frame].get("tags", []) for frame in frames]
    return items


def _group(content: Mapping[str, Any], path: Path) -> list[tuple[dict[str, Any], list[Any]]]:
    """Head of the item of each video, and the ids of its images in order."""
    images = {image["id"]: image["file_name"] for image in content["images"]}
    frames: dict[Any, list[Any]] = defaultdict(list)
    if "videos" in content:
        for image in sorted(content["images"], key=lambda image: image["frame_index"]):
            frames[image["video_id"]].append(image["id"])
        return [
            (
                {
                    "image": video.get("file_name", [images[frame] for frame in frames[video["id"]]]),
                    "video": video["name"],
                },
                frames[video["id"]],
            )
            for video in content["videos"]
        ]
    for image in sorted(images, key=lambda image: natural_key(images[image])):
        frames[os.path.dirname(images[image])].append(image)
    return [
        ({"image": [images[frame] for frame in ids], "video": folder or path.stem}, ids)
        for folder, ids in frames.items()
    ]


def _outlines(segmentation: Any, label: int, info: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    if isinstance(segmentation, list):
        return [{"label": label, "polygon": polygon, **info} for polygon in segmentation]
    if not isinstance(segmentation["counts"], list):
        raise ValueError(f"{path}: has a mask of compressed runs; write them as lists of numbers.")
    mask = mask_from_coco(segmentation)
    return [{"label": label, "mask": mask_points(mask), **info}] if mask.any() else []


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
    return coco_mask(mask_from_points(outline["mask"], height, width), outline["mask"][:4])
