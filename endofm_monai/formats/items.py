# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from endofm_monai.data import join_frames, split_frames
from endofm_monai.formats.annotations import Annotations, Shape, Tag, Track

__all__ = ["annotations_from_item", "items_from_annotations", "merge_tags", "tagged_clips"]

DEFAULTS: dict[str, Any] = {
    "track": None,
    "keyframe": True,
    "occluded": False,
    "z_order": 0,
    "attributes": {},
    "group": 0,
}


def items_from_annotations(
    annotations: Annotations, class_names: Sequence[str], image: str | None = None
) -> list[dict[str, Any]]:
    """Make items of a datalist of what was annotated in CVAT.

    Each list has an entry for each frame:

    * ``box`` and ``box_label``, as :func:`endofm_monai.data.load_box_datalist` reads them; of tracks in all frames in
      which the object is to be seen;
    * ``outline``: polygons and masks, ``{"label": 1, "polygon": [x, y, ...]}`` or ``{"label": 1, "mask": [...]}``; see
      :func:`endofm_monai.formats.masks.write_masks`, which makes mask files of them;
    * ``tag``: ``{"label": name}``; see :func:`tagged_clips`;
    * ``box_info``, for each box what else CVAT knows of it: ``track`` (a number), ``keyframe``, ``occluded``,
      ``z_order``, ``attributes``, ``group``, ``source``, as far as not the default. Outlines and tags have it too.

    Args:
        annotations: see :func:`endofm_monai.apps.cvat.read_cvat_xml`.
        class_names: names of the classes of boxes and outlines, in the order of their labels, which count from 1.
        image: the video's path in the dataset's folder, by default its name in CVAT; for images the folder that their
            names in CVAT are relative to.

    Returns:
        one item for a video, or one for each folder of images, with ``image`` and ``video`` (the task's name, or that
        of the folder where there are several).

    Raises:
        ValueError: when an object is of another class, or cannot be interpolated.
    """
    count = annotations.frames
    boxes: list[list[tuple[list[float], int, dict[str, Any]]]] = [[] for _ in range(count)]
    outlines: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for track in annotations.tracks:
        if track.label not in class_names:
            expected = ", ".join(class_names)
            raise ValueError(f"{annotations.name}: has a {track.label!r}; expected one of {expected}.")
        label = list(class_names).index(track.label) + 1
        for frame, shape in track.visible(count).items():
            info = _info(track, shape)
            if shape.kind == "box":
                boxes[frame].append((list(shape.points), label, info))
            else:
                outlines[frame].append({"label": label, shape.kind: list(shape.points), **info})
    tags = [[_describe_tag(tag) for tag in annotations.tags.get(frame, ())] for frame in range(count)]

    def item(source: str | list[str], video: str, frames: Sequence[int]) -> dict[str, Any]:
        return {
            "image": source,
            "video": video,
            "box": [[box for box, _, _ in boxes[frame]] for frame in frames],
            "box_label": [[label for _, label, _ in boxes[frame]] for frame in frames],
            "box_info": [[info for _, _, info in boxes[frame]] for frame in frames],
            "outline": [outlines[frame] for frame in frames],
            "tag": [tags[frame] for frame in frames],
        }

    if not annotations.images:
        source = image or annotations.source or annotations.name
        if annotations.start:
            source = join_frames(source, annotations.start, annotations.start + count - 1)
        return [item(source, annotations.name, range(count))]
    folders: dict[str, list[int]] = defaultdict(list)
    for frame, name in enumerate(annotations.images):
        folders[os.path.dirname(name)].append(frame)
    return [
        item(
            [os.path.join(image or "", annotations.images[frame]) for frame in frames],
            annotations.name if len(folders) == 1 and annotations.name else folder,
            frames,
        )
        for folder, frames in folders.items()
    ]


def annotations_from_item(item: Mapping[str, Any], class_names: Sequence[str], width: int, height: int) -> Annotations:
    """Make CVAT's annotations of an item of a datalist, the inverse of :func:`items_from_annotations`.

    Args:
        item: an item with some of ``box`` and ``box_label``, ``outline`` and ``tag``.
        class_names: see there.
        width: columns of a frame in pixels.
        height: rows of a frame in pixels.

    Raises:
        ValueError: when a track has two classes, or two shapes in a frame.
    """
    images = item["image"] if not isinstance(item["image"], str) else []
    source, part = split_frames(item["image"]) if not images else ("", None)
    frames = max(len(item.get(key, ())) for key in ("box", "outline", "tag"))
    name = item.get("video") or source or os.path.dirname(images[0])
    shapes: dict[int | None, list[tuple[int, Track]]] = defaultdict(list)
    for frame, label, shape, info in _shapes(item):
        number = info.get("track") if shape.kind != "mask" else None  # which CVAT cannot track
        group, source_of = info.get("group", 0), info.get("source", "manual")
        track = Track(class_names[label - 1], {frame: shape}, number, group, source_of)
        shapes[track.number].append((frame, track))
    singles = [track for _, track in shapes.pop(None, [])]
    tags = {
        frame: [Tag(tag["label"], tag.get("attributes", {}), tag.get("source", "manual")) for tag in entries]
        for frame, entries in enumerate(item.get("tag", ()))
        if entries
    }
    labels = [*class_names, *sorted({tag.label for entries in tags.values() for tag in entries} - set(class_names))]
    return Annotations(
        name=name,
        frames=frames,
        width=width,
        height=height,
        labels=labels,
        tracks=[*(_join(parts, frames, name) for parts in shapes.values()), *singles],
        tags=tags,
        images=images,
        source=source,
        start=part[0] if part else 0,
    )


def merge_tags(annotations: Annotations, tagged: Annotations) -> Annotations:
    """Add the tags of an export "for images" of the same task, as CVAT leaves them out of one "for video".

    Raises:
        ValueError: when the numbers of frames differ.
    """
    if annotations.frames != tagged.frames:
        raise ValueError(
            f"{annotations.name}: has {annotations.frames} frames, but {tagged.frames} where the tags are."
        )
    return replace(annotations, tags=tagged.tags)


def tagged_clips(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make clips with a class of the tags of items, for the training of a classifier.

    A tag counts from its frame to the next frame with one; frames before the first are left out.

    Args:
        items: items with ``tag``.

    Returns:
        items with ``image`` (a part of a video, or of a list), ``label`` (the tag's name) and ``group`` (the video).

    Raises:
        ValueError: when a frame has several tags.
    """
    clips = []
    for item in items:
        frames = {frame: entries for frame, entries in enumerate(item["tag"]) if entries}
        if several := [frame for frame, entries in frames.items() if len(entries) > 1]:
            raise ValueError(f"{item['video']}: frame {several[0]} has several tags; a clip can have one class.")
        starts: list[int] = []
        for frame, (tag,) in frames.items():
            if not starts or frames[starts[-1]][0]["label"] != tag["label"]:
                starts.append(frame)
        for start, stop in pairwise([*starts, len(item["tag"])]):
            image = (
                item["image"][start:stop] if not isinstance(item["image"], str) else _part(item["image"], start, stop)
            )
            clips.append({"image": image, "label": frames[start][0]["label"], "group": item["video"]})
    return clips


def _part(image: str, start: int, stop: int) -> str:
    source, part = split_frames(image)
    first = part[0] if part else 0
    return join_frames(source, first + start, first + stop - 1)


def _info(track: Track, shape: Shape) -> dict[str, Any]:
    values = {
        "track": track.number,
        "keyframe": shape.keyframe,
        "occluded": shape.occluded,
        "z_order": shape.z_order,
        "attributes": dict(shape.attributes),
        "group": track.group,
    }
    info = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    return info if track.source == "manual" else {**info, "source": track.source}


def _describe_tag(tag: Tag) -> dict[str, Any]:
    described: dict[str, Any] = {"label": tag.label}
    if tag.attributes:
        described["attributes"] = dict(tag.attributes)
    return described if tag.source == "manual" else {**described, "source": tag.source}


def _shapes(item: Mapping[str, Any]) -> Iterator[tuple[int, int, Shape, Mapping[str, Any]]]:
    """Frame, label, shape and info of all boxes and outlines."""
    empty: list[list[dict[str, Any]]] = [[{}] * len(boxes) for boxes in item.get("box", ())]
    frames = zip(item.get("box", ()), item.get("box_label", ()), item.get("box_info", empty), strict=True)
    for frame, (boxes, labels, infos) in enumerate(frames):
        for box, label, info in zip(boxes, labels, infos, strict=True):
            yield frame, label, _shape("box", box, info), info
    for frame, outlines in enumerate(item.get("outline", ())):
        for outline in outlines:
            kind = "polygon" if "polygon" in outline else "mask"
            yield frame, outline["label"], _shape(kind, outline[kind], outline), outline


def _shape(kind: str, points: Sequence[float], info: Mapping[str, Any]) -> Shape:
    flags = {name: info[name] for name in ("keyframe", "occluded", "z_order", "attributes") if name in info}
    return Shape(kind, tuple(points), **flags)


def _join(parts: Sequence[tuple[int, Track]], frames: int, name: str) -> Track:
    """One track of what is of one number, with the frames from which on it is not to be seen."""
    first = parts[0][1]
    shapes: dict[int, Shape] = {}
    for frame, part in sorted(parts, key=lambda part: part[0]):
        if frame in shapes or part.label != first.label:
            raise ValueError(f"{name}: track {first.number} has two shapes in frame {frame}, or two classes.")
        shape = part.shapes[frame]
        shapes[frame] = shape if frame - 1 in shapes else replace(shape, keyframe=True)
    for frame, shape in list(shapes.items()):
        if frame + 1 not in shapes and frame + 1 < frames:
            shapes[frame + 1] = replace(shape, keyframe=True, outside=True)
    return replace(first, shapes=dict(sorted(shapes.items())))
