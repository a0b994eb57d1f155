# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from xml.etree import ElementTree

from endofm_monai.apps.cvat.annotations import Annotations, Shape, Tag, Track
from endofm_monai.utils import atomic_path

__all__ = ["RECTANGLE", "SIDES", "write_cvat_xml"]

SIDES = ("xtl", "ytl", "xbr", "ybr")
RECTANGLE = ("left", "top", "width", "height")


def write_cvat_xml(annotations: Annotations, path: str | os.PathLike) -> None:
    """Write annotations in CVAT's XML format 1.1, which CVAT imports as "CVAT 1.1".

    Tracks are elements of their own, as in "CVAT for video"; what belongs to one frame alone (single shapes and tags)
    stands in elements of the images, as in "CVAT for images". CVAT reads both from one file.

    Args:
        annotations: what to write; coordinates are kept to the last digit.
        path: the file; replaced when all is written.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    _add_meta(root, annotations)
    singles: dict[int, list[tuple[Track, Shape]]] = defaultdict(list)
    for track in annotations.tracks:
        if track.number is None:
            for frame, shape in track.shapes.items():
                singles[frame].append((track, shape))
            continue
        element = ElementTree.SubElement(root, "track", id=str(track.number), label=track.label, source=track.source)
        _set_group(element, track)
        for frame, shape in track.shapes.items():
            place = {"frame": str(annotations.start + frame), "keyframe": _flag(shape.keyframe)}
            _add_shape(element, shape, {**place, "outside": _flag(shape.outside)})
    for frame in range(annotations.frames):
        if annotations.images or frame in singles or annotations.tags.get(frame):
            name = annotations.images[frame] if annotations.images else f"frame_{annotations.start + frame:06d}"
            image = ElementTree.SubElement(root, "image", id=str(annotations.start + frame), name=name)
            image.set("width", str(annotations.width))
            image.set("height", str(annotations.height))
            for track, shape in singles[frame]:
                drawn = _add_shape(image, shape, {"label": track.label, "source": track.source})
                _set_group(drawn, track)
            for tag in annotations.tags.get(frame, ()):
                _add_tag(image, tag)
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _add_meta(root: ElementTree.Element, annotations: Annotations) -> None:
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    texts = {
        "name": annotations.name,
        "size": annotations.frames,
        "mode": "annotation" if annotations.images else "interpolation",
        "start_frame": annotations.start,
        "stop_frame": annotations.start + annotations.frames - 1,
    }
    for name, value in texts.items():
        ElementTree.SubElement(task, name).text = str(value)
    labels = ElementTree.SubElement(task, "labels")
    for label in annotations.labels:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = label
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(annotations.width)
    ElementTree.SubElement(size, "height").text = str(annotations.height)
    if annotations.source:
        ElementTree.SubElement(task, "source").text = annotations.source


def _add_shape(parent: ElementTree.Element, shape: Shape, place: Mapping[str, str]) -> ElementTree.Element:
    if shape.kind == "box":
        where = {side: _number(value) for side, value in zip(SIDES, shape.points, strict=True)}
    elif shape.kind == "polygon":
        corners = zip(shape.points[::2], shape.points[1::2], strict=True)
        where = {"points": ";".join(f"{_number(x)},{_number(y)}" for x, y in corners)}
    else:
        runs = ", ".join(str(int(run)) for run in shape.points[4:])
        where = dict(zip(RECTANGLE, map(str, shape.points[:4]), strict=True), rle=runs)
    flags = {"occluded": _flag(shape.occluded), "z_order": str(shape.z_order)}
    element = ElementTree.SubElement(parent, shape.kind, {**place, **where, **flags})
    _add_attributes(element, shape.attributes)
    return element


def _add_tag(parent: ElementTree.Element, tag: Tag) -> None:
    _add_attributes(ElementTree.SubElement(parent, "tag", label=tag.label, source=tag.source), tag.attributes)


def _add_attributes(element: ElementTree.Element, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        ElementTree.SubElement(element, "attribute", name=name).text = value


def _set_group(element: ElementTree.Element, track: Track) -> None:
    if track.group:
        element.set("group_id", str(track.group))


def _flag(value: bool) -> str:
    return str(int(value))


def _number(value: float) -> str:
    """Two decimals, as CVAT writes, unless they are not enough."""
    short = f"{value:.2f}"
    return short if float(short) == value else repr(float(value))
