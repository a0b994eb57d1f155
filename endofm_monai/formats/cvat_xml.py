# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from endofm_monai.formats.annotations import Annotations, Shape, Tag, Track
from endofm_monai.utils import atomic_path

__all__ = ["RECTANGLE", "SIDES", "read_cvat_xml", "write_cvat_xml"]

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


KINDS = ("box", "polygon", "mask")
OTHER_KINDS = ("polyline", "points", "ellipse", "cuboid", "skeleton")
MAX_BYTES = 2_000_000_000  # a file that unpacks to more is not unpacked


def read_cvat_xml(path: str | os.PathLike) -> Annotations:
    """Read annotations in CVAT's XML format 1.1, "for video" or "for images".

    The file may come from a stranger: document types, and with them entities, are refused, and an archive is not
    unpacked to the disk.

    Args:
        path: the XML file, or the zip that CVAT exports, with one.

    Returns:
        what the file says; an export "for images" has no tracks, and one "for video" no tags: see :func:`merge_tags`.

    Raises:
        ValueError: when it is no such file, holds shapes that the project has no use for (ellipses, rotated boxes),
            comes from several tasks or from one with a frame filter, or something in it is not as it should be; the
            message names the file and the element.
    """
    path = Path(path)
    root = _parse(path)
    try:
        return _read(root)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"misses {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: is no file in CVAT's format 1.1 that can be used: {reason}.") from error


def _parse(path: Path) -> ElementTree.Element:
    def refuse(name: str, *_: object) -> NoReturn:
        raise ValueError(f"{path}: has a document type ({name}), which CVAT does not write; it is refused.")

    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [entry for entry in archive.infolist() if entry.filename.endswith(".xml")]
            if len(names) != 1 or names[0].file_size > MAX_BYTES:
                raise ValueError(
                    f"{path}: must hold one XML file of at most {MAX_BYTES} bytes, but holds {len(names)}."
                )
            data = archive.read(names[0])
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"{path}: is not valid XML ({error}).") from error
    return builder.close()


def _read(root: ElementTree.Element) -> Annotations:
    if root.tag != "annotations" or root.findtext("version") != "1.1":
        raise ValueError(f"needs <annotations> of version 1.1, found <{root.tag}> of {root.findtext('version')!r}")
    task = root.find("meta/task") if root.find("meta/job") is None else root.find("meta/job")
    if task is None:
        raise ValueError("has no <task>; export a task, not a project")
    if task.findtext("frame_filter"):
        raise ValueError(f"the task leaves out frames ({task.findtext('frame_filter')}); make one with all frames")
    images = sorted(root.findall("image"), key=lambda image: int(image.attrib["id"]))
    is_video = task.findtext("mode") == "interpolation"
    start = int(task.findtext("start_frame") or 0)
    if is_video:
        frames = int(task.findtext("size") or 0)
        places = {start + frame: frame for frame in range(frames)}
    else:  # CVAT leaves deleted images out
        frames = len(images)
        places = {int(image.attrib["id"]): place for place, image in enumerate(images)}
    tracks = [_read_track(element, places) for element in root.iterfind("track")]
    tags: dict[int, list[Tag]] = {}
    for image in images:
        frame = _place(image.attrib["id"], places)
        for element in image:
            label, source = element.attrib["label"], element.get("source", "manual")
            if element.tag == "tag":
                tags.setdefault(frame, []).append(Tag(label, _attributes(element), source))
            else:
                group = int(element.get("group_id", 0))
                tracks.append(Track(label, {frame: _read_shape(element)}, None, group, source))
    size = task.find("original_size")
    sizes = {(image.attrib["width"], image.attrib["height"]) for image in images if "width" in image.attrib}
    if size is not None:
        sizes = {(size.findtext("width", ""), size.findtext("height", ""))}
    if len(sizes) != 1:
        raise ValueError(f"must have frames of one size, found {sorted(sizes)}")
    ((width, height),) = sizes
    return Annotations(
        name=task.findtext("name") or "",
        frames=frames,
        width=int(width),
        height=int(height),
        labels=[label.text or "" for label in task.iterfind("labels/label/name")],
        tracks=tracks,
        tags=tags,
        images=[] if is_video else [image.attrib["name"] for image in images],
        source=task.findtext("source") or "",
        start=start if is_video else 0,
    )


def _read_track(element: ElementTree.Element, places: Mapping[int, int]) -> Track:
    shapes = {
        _place(child.attrib["frame"], places): replace(
            _read_shape(child), keyframe=child.get("keyframe", "1") == "1", outside=child.get("outside") == "1"
        )
        for child in element
    }
    if not shapes:
        raise ValueError(f"the track {element.get('id')} has no shape")
    shapes = dict(sorted(shapes.items()))
    number: int | None = int(element.attrib["id"])
    if next(iter(shapes.values())).kind == "mask":  # CVAT cannot track masks, and lists them as tracks of one frame
        number, shapes = None, dict(list(shapes.items())[:1])
    group, source = int(element.get("group_id", 0)), element.get("source", "manual")
    return Track(element.attrib["label"], shapes, number, group, source)


def _place(frame: str, places: Mapping[int, int]) -> int:
    if int(frame) not in places:
        raise ValueError(f"has something in frame {frame}, but the task has {len(places)} frames from {min(places)} on")
    return places[int(frame)]


def _read_shape(element: ElementTree.Element) -> Shape:
    attributes, kind = element.attrib, element.tag
    if kind in OTHER_KINDS or float(attributes.get("rotation", 0)):
        what = f"a <{kind}>" if kind in OTHER_KINDS else "a rotated box"
        raise ValueError(f"holds {what}; draw boxes, polygons or masks instead")
    if kind not in KINDS:
        raise ValueError(f"holds an unknown <{kind}>")
    if kind == "box":
        points = [float(attributes[side]) for side in SIDES]
    elif kind == "polygon":
        points = [float(value) for pair in attributes["points"].split(";") for value in _pair(pair)]
        if len(points) < 6:
            raise ValueError("holds a polygon of fewer than three corners")
    else:
        points = [int(attributes[name]) for name in RECTANGLE]
        points += [int(run) for run in attributes["rle"].split(",")]
        if sum(points[4:]) != points[2] * points[3] or min(points) < 0:
            raise ValueError(f"holds a mask whose runs do not fill its {points[2]}x{points[3]} pixels")
    if not all(math.isfinite(point) for point in points):
        raise ValueError(f"holds a <{kind}> that is not finite")
    return Shape(
        kind,
        tuple(points),
        occluded=attributes.get("occluded") == "1",
        z_order=int(attributes.get("z_order", 0)),
        attributes=_attributes(element),
    )


def _pair(text: str) -> tuple[str, str]:
    x, y = text.split(",")
    return x, y


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    return {attribute.attrib["name"]: attribute.text or "" for attribute in element.iterfind("attribute")}
