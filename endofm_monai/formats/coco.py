# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from endofm_monai.data import check_box, common_size, first_frame, join_frames, natural_key, open_clip, split_frames
from endofm_monai.formats import masks
from endofm_monai.formats.annotations import Shape, named, unique
from endofm_monai.formats.items import KEYS, item_shapes
from endofm_monai.utils import PathLike, as_class_names, read_json, write_json

__all__ = ["datalist_from_coco", "write_coco_annotations"]

logger = logging.getLogger(__name__)
Size = tuple[int, int]  # height and width
Sizes = tuple[Size, Size]
Video = tuple[dict[str, Any], list[Any]]  # head of its item, and the ids of its images in order
_UNKNOWN = (0, 0)


def datalist_from_coco(
    files: Mapping[str, PathLike], class_names: Sequence[str], output: PathLike, outlines: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Write, and give, a datalist from annotations in COCO's format, for :func:`endofm_monai.data.load_box_datalist`.

    There is a file for each section, ``{"training": "train.json", "validation": "val.json"}``, whose ``file_name`` are
    relative to the folder of ``output``. Labels count from 1, in the order of ``class_names``, which the list states.

    The images of one folder are the frames of one video, in natural order of their names; those in no folder are one.
    A file that lists ``videos`` says itself which image is which frame of which video, by a ``frame_index`` from 0 on.
    Of a video with a ``file_name`` frames that are not listed are left out: each part between them is an item.

    What was drawn on images of another ``width`` and ``height`` than the files have is scaled to them. Every annotation
    is a box, but for crowds (``iscrowd``), which are left out. With ``outlines`` one with a ``segmentation``, as all of
    CVAT's brush, crowd or not, becomes an ``outline`` and no box, and ``box_info`` and ``tag`` have what else is known;
    see :func:`endofm_monai.formats.items_from_annotations`.
    """
    root, names = Path(output).parent, as_class_names(class_names)
    datalist = {section: _read_videos(Path(path), names, outlines, root) for section, path in files.items()}
    write_json(output, {"labels": dict(enumerate(names, start=1)), **datalist}, indent=None)
    return datalist


def _read_videos(path: Path, class_names: list[str], outlines: bool, root: Path) -> list[dict[str, Any]]:
    content: Any = read_json(path, object)
    with named(f"{path}: is no JSON in COCO's format that can be used"):
        names = unique(((each["id"], each["name"]) for each in content["categories"]), "has two categories of id")
        images = {image["id"]: image for image in content["images"]}
        videos = _group(content, path)
        listed = content["annotations"]
        annotations = [each for each in listed if not each.get("iscrowd") or (outlines and _is_runs(each))]
        has_masks = outlines and any(isinstance(each.get("segmentation"), dict) for each in annotations)
    with named(path):
        sizes = _sizes(videos, images, root, has_masks)
    if crowds := len(listed) - len(annotations):
        hint = "" if outlines else "; masks, which CVAT marks so, are read with `outlines=True`"
        logger.warning(f"{path}: {crowds} crowds (`iscrowd`) are no single polyps and are left out{hint}.")
    keys = KEYS if outlines else KEYS[:2]
    found: dict[Any, dict[str, list]] = {
        image: {**{key: [] for key in KEYS}, "tag": about.get("tags", [])} for image, about in images.items()
    }
    for number, annotation in enumerate(annotations):
        with named(f"{path}: annotation {annotation.get('id', number)!r}"):
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in sizes:
                raise ValueError(f"has a box of the image {image!r}, which it does not list")
            if (name := names.get(category)) not in class_names:
                raise ValueError(f"has a box of the class {name!r}; expected one of {', '.join(class_names)}")
            label, info = class_names.index(name) + 1, annotation.get("attributes") or {}
            if outlines and annotation.get("segmentation"):
                found[image]["outline"] += _outlines(annotation["segmentation"], label, info, *sizes[image])
                continue
            box = _box(annotation["bbox"], info.get("rotation", 0), *sizes[image])
            check_box(box, f"image {image!r}")
        for key, value in zip(KEYS, (box, label, info), strict=False):
            found[image][key].append(value)
    return [{**video, **{key: [found[frame][key] for frame in frames] for key in keys}} for video, frames in videos]


def _is_runs(annotation: Mapping[str, Any]) -> bool:
    """Say whether an annotation is a mask of runs; CVAT marks each one of its brush as a crowd, which it is not."""
    mask = annotation.get("segmentation")
    return isinstance(mask, dict) and isinstance(mask.get("counts"), list)


def _sizes(videos: list[Video], images: Mapping[Any, Any], root: Path, has_masks: bool) -> dict[Any, Sizes]:
    """Sizes that each image had when it was annotated, and that its file has; the same where only one is known."""
    sizes: dict[Any, Sizes] = {}
    missing: list[str] = []
    for video, frames in videos:
        if not frames:
            continue
        declared = {image: (images[image].get("height") or 0, images[image].get("width") or 0) for image in frames}
        is_file, size = isinstance(video["image"], str), _UNKNOWN
        first = str(root / (video["image"] if is_file else video["image"][0]))
        is_needed = has_masks or any(map(all, declared.values()))
        if is_needed and not os.path.exists(split_frames(first)[0]):
            missing.append(first)
        elif is_needed:
            with open_clip(first if is_file else [first]) as reader:
                size = reader.probe().height, reader.probe().width  # of all frames of a clip
        for image, drawn in declared.items():
            sizes[image] = size, size
            if all(drawn):
                sizes[image] = drawn, drawn if size == _UNKNOWN else size
                path = root / images[image]["file_name"]
                if size not in (_UNKNOWN, drawn) and not is_file and path.exists():
                    common_size([first, path])
                masks.check_proportions(*sizes[image], images[image]["file_name"])
    if missing:
        problem = f"does not exist (files of {len(missing)} videos do not), so that its size is not known"
        advice = "if another was annotated, write the datalist into the folder that file names are relative to"
        logger.warning(f"{missing[0]}: {problem}; {advice}.")
    return sizes


def _group(content: Mapping[str, Any], path: Path) -> list[Video]:
    listed = content["images"]
    images = unique(((image["id"], image["file_name"]) for image in listed), "has two images of id")
    frames: dict[Any, list[Any]] = defaultdict(list)

    def names(ids: Sequence[Any]) -> list[str]:
        return list(unique(((images[id_], id_) for id_ in ids), "has two images of file_name"))

    if "videos" not in content:
        for image in sorted(images, key=lambda image: natural_key(images[image])):
            frames[os.path.dirname(images[image])].append(image)
        return [({"image": names(ids), "video": folder or path.stem}, ids) for folder, ids in frames.items()]
    places = (((image["video_id"], image["frame_index"]), image["file_name"]) for image in listed)
    unique(places, "has two images of video and frame")
    for image in sorted(listed, key=lambda image: image["frame_index"]):
        frames[image["video_id"]].append(image["id"])
    unique(((video["id"], video["name"]) for video in content["videos"]), "has two videos of id")
    indices = {image["id"]: image["frame_index"] for image in listed}
    heads: list[Video] = []
    for video in content["videos"]:
        ids = frames[video["id"]]
        at = [indices[id_] for id_ in ids]
        if "file_name" not in video or at == list(range(len(at))):
            heads.append(({"image": video.get("file_name") or names(ids), "video": video["name"]}, ids))
            continue
        ends = [0, *(n for n in range(1, len(at)) if at[n] != at[n - 1] + 1), len(at)]
        if len(ends) > 2:
            gaps = at[-1] + 1 - at[0] - len(at)
            logger.warning(f"{path}: {gaps} frames between those of {video['name']!r} are not listed and are left out.")
        file, start = split_frames(video["file_name"])[0], first_frame(video["file_name"])
        for first, stop in pairwise(ends):
            part = join_frames(file, start + at[first], start + at[stop - 1])
            heads.append(({"image": part, "video": video["name"]}, ids[first:stop]))
    return heads


def _box(bbox: Any, turn: Any, drawn: Size, size: Size) -> list[float]:
    if isinstance(turn, (int, float)) and turn % 360:  # as CVAT writes it
        raise ValueError("has a rotated box; draw boxes, polygons or masks instead")
    x, y, width, height = (float(side) for side in bbox)
    # rounded, so that far sides have no more digits than they were written with
    return list(masks.scale_points("box", [x, y, round(x + width, 6), round(y + height, 6)], drawn, size))


def _outlines(segmentation: Any, label: int, info: Mapping[str, Any], drawn: Size, size: Size) -> list[dict[str, Any]]:
    if isinstance(segmentation, list):
        polygons = [list(masks.scale_points("polygon", [float(v) for v in part], drawn, size)) for part in segmentation]
        if not all(len(part) % 2 == 0 and len(part) >= 6 and all(map(math.isfinite, part)) for part in polygons):
            raise ValueError("has a polygon that is not of three or more finite corners")
        return [{"label": label, "polygon": polygon, **info} for polygon in polygons]
    if not isinstance(segmentation["counts"], list):
        raise ValueError("has a mask of compressed runs; write them as lists of numbers")
    mask = masks.mask_from_coco(segmentation)  # which has a size of its own
    if not mask.any():
        return []
    size = mask.shape if size == _UNKNOWN else size
    masks.check_proportions(mask.shape, size, "its mask")
    points = masks.scale_points("mask", masks.mask_points(mask), mask.shape, size)
    return [{"label": label, "mask": list(points), **info}]


def write_coco_annotations(
    items: Sequence[Mapping[str, Any]], class_names: Sequence[str], frame_sizes: Sequence[Size], path: PathLike
) -> None:
    """Write the boxes, outlines and tags of items, whose frames have ``frame_sizes`` (height, width), in COCO's format.

    Videos are listed under ``videos``, and each image has its ``video_id`` and ``frame_index``. What COCO has no place
    for stands in an annotation's ``attributes``, and in an image's ``tags``. :func:`datalist_from_coco` with
    ``outlines=True`` reads the items again.
    """
    videos, images, annotations = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for item, (height, width) in zip(items, frame_sizes, strict=True):
        file = {"file_name": item["image"]} if isinstance(item["image"], str) else {}
        videos.append({"id": len(videos) + 1, "name": item["video"], **file})
        first = len(images) + 1
        for frame in range(max(len(item.get(key, ())) for key in ("box", "outline", "tag"))):
            name = f"{item['image']}/frame_{frame:06d}.png" if file else item["image"][frame]
            place = {"video_id": len(videos), "frame_index": frame, "tags": item["tag"][frame] if "tag" in item else []}
            images.append({"id": first + frame, "file_name": name, "width": width, "height": height, **place})
        for frame, label, shape, info in item_shapes(item, len(class_names)):
            ids = {"id": len(annotations) + 1, "image_id": first + frame, "category_id": label}
            annotations.append({**ids, **_place(shape, height, width), "attributes": info})
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    content = {"categories": categories, "videos": videos, "images": images, "annotations": annotations}
    write_json(path, content, indent=None)


def _place(shape: Shape, height: int, width: int) -> dict[str, Any]:
    if shape.kind == "mask":
        return masks.coco_mask(masks.mask_from_points(shape.points, height, width), shape.points[:4])
    x, y = shape.points[::2], shape.points[1::2]
    bbox = [min(x), min(y), round(max(x) - min(x), 6), round(max(y) - min(y), 6)]
    polygons, area = [list(shape.points)] if shape.kind == "polygon" else [], bbox[2] * bbox[3]
    if polygons:
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return {"segmentation": polygons, "area": round(float(area), 6), "bbox": bbox, "iscrowd": 0}
