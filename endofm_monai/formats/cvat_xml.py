# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.parsers import expat

from endofm_monai.data import natural_key
from endofm_monai.data.readers.base import is_hidden
from endofm_monai.formats.annotations import Annotations, Shape, Tag, Track, named, unique, unknown_frames
from endofm_monai.formats.masks import MAX_SIDE, check_mask_points
from endofm_monai.utils import PathLike, atomic_path, open_zip

__all__ = ["read_cvat_xml", "write_cvat_xml"]

logger = logging.getLogger(__name__)
SIDES = ("xtl", "ytl", "xbr", "ybr")
RECTANGLE = ("left", "top", "width", "height")
FLAGS = {"keyframe": "1", "outside": "0", "occluded": "0"}  # of a shape, and what counts where they are missing
MAX_BYTES = 1 << 28  # of XML, of which Python makes ten times as much
MAX_RATIO = 200  # of XML to the zip that holds it
MAX_FRAMES = 2_000_000  # 18 hours at 30 frames per second
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # among them bytes that are not UTF-8


def write_cvat_xml(annotations: Annotations, path: PathLike) -> None:
    """Write annotations in CVAT's XML format 1.1, which CVAT imports as "CVAT 1.1"; coordinates keep all digits.

    Tracks stand as in "CVAT for video", single shapes and tags as in "CVAT for images". CVAT reads both from one file.
    """
    start, images = annotations.start, annotations.images
    size = {"width": str(annotations.width), "height": str(annotations.height)}
    root = Element("annotations")
    _add_texts(root, version="1.1")
    task = SubElement(SubElement(root, "meta"), "task")
    _add_texts(task, name=annotations.name, size=annotations.frames, mode="annotation" if images else "interpolation")
    _add_texts(task, start_frame=start, stop_frame=start + annotations.frames - 1)
    labels = SubElement(task, "labels")
    for label in annotations.labels:
        _add_texts(SubElement(labels, "label"), name=label)
    _add_texts(SubElement(task, "original_size"), **size)
    if annotations.source:
        _add_texts(task, source=annotations.source)

    singles: dict[int, list[tuple[Shape, dict[str, str]]]] = defaultdict(list)
    for track in annotations.tracks:
        head = {"label": track.label, "source": track.source, **({"group_id": str(track.group)} if track.group else {})}
        if track.number is None:
            for frame, shape in track.shapes.items():
                singles[frame].append((shape, head))
            continue
        element = SubElement(root, "track", {"id": str(track.number), **head})
        for frame, shape in track.shapes.items():
            flags = {"keyframe": str(int(shape.keyframe)), "outside": str(int(shape.outside))}
            _add_shape(element, shape, {"frame": str(start + frame), **flags})
    frames: Iterable[int] = sorted({*singles, *annotations.tags})
    if images or (frames and root.find("track") is None):  # as an export "for images", which lists all of them
        frames = [frame for frame in range(annotations.frames) if frame not in annotations.left_out]
    for frame in frames:
        name = _text(images[frame]) if images else f"frame_{start + frame:06d}"
        image = SubElement(root, "image", {"id": str(start + frame), "name": name, **size})
        for shape, head in singles[frame]:
            _add_shape(image, shape, head)
        for tag in annotations.tags.get(frame, ()):
            _add_attributes(SubElement(image, "tag", label=tag.label, source=tag.source), tag.attributes)
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _add_texts(parent: Element, **texts: object) -> None:
    for name, text in texts.items():
        SubElement(parent, name).text = _text(text)


def _text(value: object) -> str:
    return _NO_XML.sub(lambda found: ascii(found[0])[1:-1], str(value))


def _add_shape(parent: Element, shape: Shape, head: Mapping[str, str]) -> None:
    if shape.kind == "box":
        where = {side: _number(value) for side, value in zip(SIDES, shape.points, strict=True)}
    elif shape.kind == "polygon":
        corners = zip(shape.points[::2], shape.points[1::2], strict=True)
        where = {"points": ";".join(f"{_number(x)},{_number(y)}" for x, y in corners)}
    else:
        rectangle = dict(zip(RECTANGLE, map(str, shape.points[:4]), strict=True))
        where = {**rectangle, "rle": ", ".join(str(int(run)) for run in shape.points[4:])}
    flags = {"occluded": str(int(shape.occluded)), "z_order": str(shape.z_order)}
    _add_attributes(SubElement(parent, shape.kind, {**head, **where, **flags}), shape.attributes)


def _add_attributes(element: Element, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        SubElement(element, "attribute", name=_text(name)).text = _text(value)


def _number(value: float) -> str:
    """Two decimals, as CVAT writes, unless they are not enough."""
    short = f"{value:.2f}"
    return short if float(short) == value else repr(float(value))


def read_cvat_xml(path: PathLike) -> Annotations:
    """Read annotations in CVAT's XML format 1.1, "for video" or "for images": the XML, or the zip that CVAT exports.

    The file may come from a stranger: document types, and with them entities, are refused, and an archive is not
    unpacked to the disk. An export "for images" has no tracks, and one "for video" no tags: see
    :func:`endofm_monai.formats.merge_tags`. Images are in natural order of their names: CVAT numbers ``10`` before
    ``2`` unless told otherwise.
    """
    path = Path(path)
    root = _parse(path)
    with named(f"{path}: is no file in CVAT's format 1.1 that can be used"):
        return _read(root, path)


def _parse(path: Path) -> Element:
    def refuse(name: str, *_: object) -> NoReturn:
        raise ValueError(f"{path}: has a document type ({name}), which CVAT does not write; it is refused.")

    with open_zip(path, MAX_RATIO) if zipfile.is_zipfile(path) else nullcontext() as archive:
        listed = archive.infolist() if archive else []
        found = [entry for entry in listed if entry.filename.endswith(".xml")]
        entries = [entry for entry in found if not any(map(is_hidden, entry.filename.split("/")))]  # as macOS adds
        if archive and len(entries) != 1:
            raise ValueError(f"{path}: must hold one XML file, but holds {len(entries)}.")
        if (size := entries[0].file_size if archive else path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{path}: has {size} bytes; XML is read up to {MAX_BYTES}.")
        data = archive.read(entries[0]) if archive else path.read_bytes()
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:  # also an encoding that nobody knows
        raise ValueError(f"{path}: is not valid XML ({error}).") from error
    return builder.close()


def _read(root: Element, path: Path) -> Annotations:
    task = _find_task(root)
    images = sorted(root.findall("image"), key=lambda image: int(image.attrib["id"]))
    is_video = task.findtext("mode") == "interpolation"
    if not is_video and not images:
        raise ValueError('the task is one of images, which it does not list; export it as "CVAT for images 1.1"')
    if not is_video and root.find("track") is None:  # tracks go from frame to frame as these are numbered
        images.sort(key=lambda image: natural_key(image.attrib["name"]))
    start, count = int(task.findtext("start_frame") or 0), int(task.findtext("size") or 0)
    if not 0 <= count <= MAX_FRAMES or start < 0:
        raise ValueError(f"the task has {count} frames from {start} on; expected up to {MAX_FRAMES}")
    ids = ((int(image.attrib["id"]), image.get("name")) for image in images)
    listed = list(unique(ids, "has two images of id"))  # CVAT leaves deleted ones out
    whole = range(start, start + count)
    frames = {number: place for place, number in enumerate(whole if is_video else listed)}
    of_job = root.find("meta/original_size")
    height, width = _frame_size(task.find("original_size") if of_job is None else of_job, images)

    def place(frame: str) -> int:
        if int(frame) not in frames:
            raise ValueError(f"has something in frame {frame}, but the task has {len(frames)} frames")
        return frames[int(frame)]

    shape = partial(_read_shape, height=height, width=width)
    tracks = [_read_track(element, place, shape) for element in root.iterfind("track")]
    unique(((track.number, track.label) for track in tracks if track.number is not None), "has two tracks of id")
    left_out = _left_out(root, tracks, whole, listed, is_video)
    tags, singles = _read_images(images, place, shape)
    names = () if is_video else ((image.attrib["name"], image.attrib["id"]) for image in images)
    if left_out:
        shown = ", ".join(map(str, sorted(left_out)[:20])) + ", ..." * (len(left_out) > 20)
        logger.warning(
            f"{path}: {len(left_out)} frames were deleted or are missing ({shown}); that says nothing about polyps, so "
            "they are left out."
        )
    return Annotations(
        name=task.findtext("name") or path.stem,  # a job has no name
        frames=len(frames),
        width=width,
        height=height,
        labels=[label.text or "" for label in task.iterfind("labels/label/name")],
        tracks=[track for track in (*tracks, *singles) if track.shapes],  # of masks none may be left
        tags=tags,
        images=list(unique(names, "has two images of name")),
        source=task.findtext("source") or "",
        start=start if is_video else 0,
        left_out=frozenset(number - start for number in left_out if is_video),
        file=str(path),
    )


def _find_task(root: Element) -> Element:
    """The task, or job, that a file is of."""
    if root.tag != "annotations" or root.findtext("version") != "1.1":
        raise ValueError(f"needs <annotations> of version 1.1, found <{root.tag}> of {root.findtext('version')!r}")
    job = root.find("meta/job")
    task = root.find("meta/task") if job is None else job
    if task is None:
        raise ValueError("has no <task>; export a task, not a project")
    step = task.findtext("frame_filter") or ""
    if step.replace(" ", "") not in ("", "step=1"):
        raise ValueError(f"the task leaves out frames ({step}); make one with all frames")
    return task


def _frame_size(size: Element | None, images: list[Element]) -> tuple[int, int]:
    sizes = {(image.attrib["width"], image.attrib["height"]) for image in images if "width" in image.attrib}
    if size is not None:
        sizes.add((size.findtext("width", ""), size.findtext("height", "")))
    if len(sizes) != 1:
        raise ValueError(f"must have frames of one size, found {sorted(sizes)}")
    width, height = map(int, *sizes)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"has frames of {width}x{height}; expected sides of up to {MAX_SIDE}")
    return height, width


def _left_out(root: Element, tracks: Iterable[Track], whole: range, listed: Sequence[int], is_video: bool) -> set[int]:
    """Frames of the ``whole`` task, as CVAT counts them, of which the file says nothing."""
    found: set[int] = set()
    if not is_video or (listed and root.find("track") is None):  # an export "for images" lists every frame
        found = set(whole).difference(listed)
    if is_video:
        is_export = root.find("meta/dumped") is not None or root.find("track/*[@keyframe='0']") is not None
        for track in tracks:
            found.update(whole.start + frame for frame in unknown_frames(track, is_export, len(whole)))
    return found


def _read_images(
    images: Iterable[Element], place: Callable[[str], int], shape: Callable[[Element], Shape]
) -> tuple[dict[int, list[Tag]], list[Track]]:
    """The tags of each frame that has some, and what is drawn in one frame alone."""
    tags: dict[int, list[Tag]] = {}
    singles: list[Track] = []
    for image in images:
        frame = place(image.attrib["id"])
        for element in image:
            if element.tag == "tag":
                tag = Tag(element.attrib["label"], _attributes(element), element.get("source", "manual"))
                tags.setdefault(frame, []).append(tag)
            else:
                singles.append(_track(element, {frame: shape(element)}, None))
    return tags, singles


def _read_track(element: Element, place: Callable[[str], int], shape: Callable[[Element], Shape]) -> Track:
    read = [(child.attrib["frame"], shape(child)) for child in element]
    places = ((int(frame), (each.kind, *each.points[:4])) for frame, each in read)
    unique(places, f"has two shapes of track {element.get('id')} in frame")
    shapes = sorted(((place(frame), each) for frame, each in read), key=itemgetter(0))
    if not shapes:
        raise ValueError(f"the track {element.get('id')} has no shape")
    if shapes[0][1].kind == "mask":  # CVAT cannot track masks: each is of its frame alone, and then "outside"
        return _track(element, {frame: each for frame, each in shapes if not each.outside}, None)
    return _track(element, dict(shapes), int(element.attrib["id"]))


def _track(element: Element, shapes: Mapping[int, Shape], number: int | None) -> Track:
    group, source = int(element.get("group_id", 0)), element.get("source", "manual")
    return Track(element.attrib["label"], shapes, number, group, source)


def _read_shape(element: Element, height: int, width: int) -> Shape:
    given, kind = element.attrib, element.tag
    if float(given.get("rotation", 0)) % 360:
        raise ValueError("holds a rotated box; draw boxes, polygons or masks instead")
    points: Sequence[float]
    if kind == "box":
        points = [float(given[side]) for side in SIDES]
    elif kind == "polygon":
        corners = [corner.split(",") for corner in given["points"].split(";")]
        points = [float(value) for x, y in corners for value in (x, y)]
        if len(corners) < 3:
            raise ValueError("holds a polygon of fewer than three corners")
    elif kind == "mask":
        points = check_mask_points([*(given[side] for side in RECTANGLE), *given["rle"].split(",")], height, width)
    else:
        raise ValueError(f"holds a <{kind}>; draw boxes, polygons or masks instead")
    if not all(map(math.isfinite, points)):
        raise ValueError(f"holds a <{kind}> that is not finite")
    flags = {name: given.get(name, default) == "1" for name, default in FLAGS.items()}
    return Shape(kind, tuple(points), **flags, z_order=int(given.get("z_order", 0)), attributes=_attributes(element))


def _attributes(element: Element) -> dict[str, str]:
    return {attribute.attrib["name"]: attribute.text or "" for attribute in element.iterfind("attribute")}
