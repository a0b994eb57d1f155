# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from endofm_monai.data import first_frame, join_frames, split_frames
from endofm_monai.formats.annotations import Annotations, Shape, Tag, Track, end_gaps

__all__ = ["annotations_from_item", "items_from_annotations", "tagged_clips"]

KEYS = ("box", "box_label", "box_info", "outline", "tag")
OF_SHAPE: dict[str, Any] = {"keyframe": True, "occluded": False, "z_order": 0, "attributes": {}}
DEFAULTS = {"track": None, **OF_SHAPE, "group": 0, "source": "manual"}


def items_from_annotations(
    annotations: Annotations, class_names: Sequence[str], image: str | None = None, file_frames: int | None = None
) -> list[dict[str, Any]]:
    """Make items of a datalist of what was annotated in CVAT.

    There is one item for a video, or for each part of it between frames that are left out; or one for each folder of
    images; with ``image`` and ``video`` (the task's name, or that of the folder where there are several), and lists
    that have an entry for each frame:

    * ``box`` and ``box_label``, as :func:`endofm_monai.data.load_box_datalist` reads them; of tracks in all frames in
      which the object is to be seen;
    * ``outline``: polygons and masks, ``{"label": 1, "polygon": [x, y, ...]}`` or ``{"label": 1, "mask": [...]}``, of
      which :func:`endofm_monai.formats.write_masks` makes mask files;
    * ``tag``: ``{"label": name}``; see :func:`tagged_clips`;
    * ``box_info``, for each box what else CVAT knows of it, as far as not the default: ``track`` (a number),
      ``keyframe``, ``occluded``, ``z_order``, ``attributes``, ``group``, ``source``. Outlines and tags have it too.

    Labels of boxes and outlines count from 1, in the order of ``class_names``. ``image`` is the video's path in the
    dataset's folder, by default its name in CVAT; for images the folder that their names in CVAT are relative to. A
    video's file may have more frames, ``file_frames``, than were annotated.
    """
    count = annotations.frames
    frames: list[dict[str, list[Any]]] = [{key: [] for key in KEYS} for _ in range(count)]
    for track in annotations.tracks:
        if track.label not in class_names:
            raise ValueError(f"{annotations}: has a {track.label!r}; expected one of {', '.join(class_names)}.")
        label = list(class_names).index(track.label) + 1
        for frame, shape in track.visible(count, annotations.left_out).items():
            info = _unusual({**vars(shape), "track": track.number, "group": track.group, "source": track.source})
            if shape.kind == "box":
                for key, value in zip(KEYS, (list(shape.points), label, info), strict=False):
                    frames[frame][key].append(value)
            else:
                frames[frame]["outline"].append({"label": label, shape.kind: list(shape.points), **info})
    for frame, tags in annotations.tags.items():
        frames[frame]["tag"] = [{"label": tag.label, **_unusual(vars(tag))} for tag in tags]

    def item(source: str | list[str], video: str, numbers: Sequence[int]) -> dict[str, Any]:
        return {"image": source, "video": video, **{key: [frames[number][key] for number in numbers] for key in KEYS}}

    if not annotations.images:
        source, first = image or annotations.source or annotations.name, annotations.start
        if not first and not annotations.left_out and file_frames in (None, count):
            return [item(source, annotations.name, range(count))]
        ends = [-1, *sorted(annotations.left_out), count]
        parts = [range(before + 1, after) for before, after in pairwise(ends) if after - before > 1]
        return [item(join_frames(source, first + p.start, first + p.stop - 1), annotations.name, p) for p in parts]
    folders: dict[str, list[int]] = defaultdict(list)
    for frame, name in enumerate(annotations.images):
        folders[os.path.dirname(name)].append(frame)
    paths = [os.path.join(image or "", name) for name in annotations.images]
    task = annotations.name if len(folders) == 1 else ""
    return [
        item([paths[n] for n in numbers], task or folder or annotations.name, numbers)
        for folder, numbers in folders.items()
    ]


def annotations_from_item(item: Mapping[str, Any], class_names: Sequence[str], width: int, height: int) -> Annotations:
    """Make CVAT's annotations of an item of a datalist, the inverse of :func:`items_from_annotations`.

    The item may have some of ``box`` and ``box_label``, ``outline`` and ``tag``; its frames have ``width`` x ``height``
    pixels.
    """
    images = item["image"] if not isinstance(item["image"], str) else []
    source = split_frames(item["image"])[0] if not images else ""
    name = item.get("video") or source or os.path.dirname(images[0])
    frames = max(len(item.get(key, ())) for key in ("box", "outline", "tag"))
    singles: list[Track] = []
    tracks: dict[int, tuple[Track, dict[int, Shape]]] = {}
    for frame, label, shape, info in item_shapes(item, len(class_names)):
        known = {**DEFAULTS, **info}
        number = known["track"] if shape.kind != "mask" else None  # which CVAT cannot track
        track = Track(class_names[label - 1], {frame: shape}, number, known["group"], known["source"])
        if number is None:
            singles.append(track)
            continue
        first, shapes = tracks.setdefault(number, (track, {}))
        if frame in shapes or track.label != first.label:
            raise ValueError(f"{name}: track {number} has two shapes in frame {frame}, or two classes.")
        shapes[frame] = shape if frame - 1 in shapes else replace(shape, keyframe=True)
    tags = {
        frame: [Tag(tag["label"], tag.get("attributes", {}), tag.get("source", "manual")) for tag in entries]
        for frame, entries in enumerate(item.get("tag", ()))
        if entries
    }
    labels = [*class_names, *sorted({tag.label for entries in tags.values() for tag in entries} - {*class_names})]
    drawn = [*(replace(first, shapes=end_gaps(shapes, frames)) for first, shapes in tracks.values()), *singles]
    return Annotations(name, frames, width, height, labels, drawn, tags, images, source, first_frame(item["image"]))


def tagged_clips(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make clips with a class of the ``tag`` of items, for the training of a classifier.

    A tag counts from its frame to the next one with a tag; frames before the first are left out. Clips have ``image``,
    a part of a video or of a list, ``label``, the tag's name, and ``group``, the video.
    """
    clips: list[dict[str, Any]] = []
    places = {item["video"]: place for place, item in reversed([*enumerate(items)])}
    for item in sorted(items, key=lambda item: (places[item["video"]], first_frame(item["image"]))):  # parts in order
        labels: dict[int, str] = {}  # by the frame from which on it counts
        last, first = None, first_frame(item["image"])
        if clips and clips[-1]["group"] == item["video"]:  # the next part of a video
            last = labels[0] = clips[-1]["label"]
        for frame, tags in enumerate(item["tag"]):
            if len(tags) > 1:
                raise ValueError(f"{item['video']}: frame {first + frame} has several tags; a clip can have one class.")
            if tags and tags[0]["label"] != last:
                last = labels[frame] = tags[0]["label"]
        for start, stop in pairwise([*labels, len(item["tag"])]):
            image = item["image"][start:stop]
            if isinstance(item["image"], str):
                image = join_frames(split_frames(item["image"])[0], first + start, first + stop - 1)
            clips.append({"image": image, "label": labels[start], "group": item["video"]})
    return clips


def _unusual(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name, default in DEFAULTS.items() if values.get(name, default) != default}


def item_shapes(item: Mapping[str, Any], classes: int) -> Iterator[tuple[int, int, Shape, dict[str, Any]]]:
    """Frame, label, shape, and what else is known, of all boxes and outlines of an item, frame by frame."""
    for frame in range(max(len(item.get(key, ())) for key in ("box", "outline"))):
        boxes, labels, infos, outlines = (item[key][frame] if key in item else [] for key in KEYS[:4])
        found = list(zip(["box"] * len(boxes), boxes, labels, infos or [{}] * len(boxes), strict=True))
        for outline in outlines:
            kind = "polygon" if "polygon" in outline else "mask"
            info = {key: value for key, value in outline.items() if key not in ("label", kind)}
            found.append((kind, outline[kind], outline["label"], info))
        for kind, points, label, info in found:
            if not 1 <= label <= classes:
                name = item.get("video") or item["image"]
                raise ValueError(f"{name}: frame {frame} shows class {label}; expected 1 to {classes}.")
            of_shape = {key: info[key] for key in OF_SHAPE if key in info}
            yield frame, label, Shape(kind, tuple(points), **of_shape), info
