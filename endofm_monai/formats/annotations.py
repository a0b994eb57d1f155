# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from endofm_monai.formats.masks import check_proportions, scale_points
from endofm_monai.inferers import BoxTrack

__all__ = ["Annotations", "Shape", "Tag", "Track", "end_gaps", "fit_annotations", "join_tracks", "merge_tags"]

logger = logging.getLogger(__name__)
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
TRACK = "track"
"""Attribute of single shapes with the number of the polyp that they show, where tracks cannot be uploaded."""


@dataclass(frozen=True)
class Shape:
    """What is drawn in one frame, in CVAT's coordinates: pixel (0, 0) reaches from 0 to 1."""

    kind: str  # "box", "polygon" or "mask"
    points: tuple[float, ...]  # x1, y1, x2, y2; x, y of each corner; of a mask see `formats.masks.mask_points`
    keyframe: bool = True  # drawn by somebody, and not interpolated
    outside: bool = False  # the object is not to be seen, from this frame on
    occluded: bool = False  # something is before it
    z_order: int = 0  # layer
    attributes: Mapping[str, str] = field(default_factory=dict)  # whatever else CVAT's label asks for


@dataclass(frozen=True)
class Track:
    """An object in the frames of a video."""

    label: str  # name of its class
    shapes: Mapping[int, Shape]  # by frame, in order, as far as they are listed
    number: int | None = None  # None for what was drawn in one frame, with no relation to other frames
    group: int = 0  # CVAT's; 0 for none
    source: str = "manual"  # or "auto", ...

    def visible(self, frames: int, left_out: Collection[int] = ()) -> dict[int, Shape]:
        """The shapes of all frames of a video of so many ``frames`` in which the object is to be seen.

        As in CVAT they are interpolated linearly between listed frames, but for ``left_out`` ones, and the last stays.
        """
        found: dict[int, Shape] = {}
        for frame, following in pairwise([*sorted(self.shapes), frames]):
            shape = self.shapes[frame]
            if shape.outside:
                continue
            found[frame] = shape
            target = self.shapes.get(following, shape)
            for between in range(frame + 1, following) if self.number is not None else ():
                if between in left_out:
                    continue
                share = (between - frame) / (following - frame)
                points = _interpolate(shape, shape if target.outside else target, share)
                found[between] = replace(shape, points=points, keyframe=False)
        return found


@dataclass(frozen=True)
class Tag:
    """A class that a whole frame is given; see :class:`Shape` for the attributes and :class:`Track` for the source."""

    label: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: str = "manual"


@dataclass(frozen=True)
class Annotations:
    """What CVAT knows of a task: a video, or a list of images. Frames count from 0."""

    name: str
    frames: int
    width: int  # of a frame, in pixels
    height: int
    labels: Sequence[str]  # names of the classes
    tracks: Sequence[Track] = ()
    tags: Mapping[int, Sequence[Tag]] = field(default_factory=dict)  # of the frames that have some
    images: Sequence[str] = ()  # names of the frames, for a task of images
    source: str = ""  # file name of the video, for a task of one
    start: int = 0  # number of the video's frame that is frame 0 here
    left_out: Collection[int] = frozenset()  # frames of a video that were deleted, of which nothing is known
    file: str = field(default="", compare=False)  # that they were read from

    def __str__(self) -> str:
        return self.file or self.name


@contextmanager
def named(where: object) -> Iterator[None]:
    """Say by a ``ValueError`` where there is something that is not as it should be."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = str(error).removesuffix(".")
        if isinstance(error, KeyError):
            reason = f"misses {error}"
        elif not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where}: {reason}.") from error


def unique(pairs: Iterable[tuple[Key, Value]], two: str) -> dict[Key, Value]:
    """What a file lists, by its ids or names; a ``ValueError`` of what there are ``two`` names both of one key."""
    found: dict[Key, Value] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{two} {key!r}: {found[key]!r} and {value!r}")
        found[key] = value
    return found


def unknown_frames(track: Track, is_complete: bool, frames: int) -> set[int]:
    """Frames of a video of ``frames`` in which it is not known whether the object is to be seen, as a track tells.

    A file that ``is_complete`` lists every frame until the object is gone, but those that were deleted; in others boxes
    are interpolated, and polygons of as many corners.
    """
    found: set[int] = set()
    for frame, following in pairwise([*sorted(track.shapes), frames]) if track.number is not None else ():
        shape = track.shapes[frame]
        target = track.shapes.get(following, shape)
        is_known = target.outside or len(shape.points) == len(target.points)
        if not shape.outside and (is_complete or not is_known):
            found.update(range(frame + 1, following))
    return found


def fit_annotations(annotations: Annotations, height: int, width: int, where: str) -> Annotations:
    """Scale annotations to the frames of a file, perhaps a smaller or larger copy of the one that was annotated."""
    drawn, size = (annotations.height, annotations.width), (height, width)
    check_proportions(drawn, size, where)

    def scaled(shape: Shape) -> Shape:
        return replace(shape, points=scale_points(shape.kind, shape.points, drawn, size))

    tracks = [
        replace(track, shapes={frame: scaled(shape) for frame, shape in track.shapes.items()})
        for track in annotations.tracks
    ]
    return replace(annotations, tracks=tracks, height=height, width=width)


def _interpolate(shape: Shape, target: Shape, share: float) -> tuple[float, ...]:
    if shape.points == target.points and shape.kind != "mask":
        return shape.points
    if shape.kind == "mask" or len(shape.points) != len(target.points):
        raise ValueError(f"a {shape.kind} cannot be interpolated to a {target.kind} with another number of corners")
    points = np.array(shape.points) * (1 - share) + np.array(target.points) * share
    return tuple(points.round(2).tolist())


def end_gaps(shapes: Mapping[int, Shape], frames: int, bridge: bool = False) -> dict[int, Shape]:
    """List from where on a track's object is not to be seen in a video of so many ``frames``.

    With ``bridge`` boxes are interpolated in gaps; polygons cannot be.
    """
    last = max(shapes)
    ends = {
        frame + 1: replace(shape, keyframe=True, outside=True)
        for frame, shape in shapes.items()
        if frame + 1 < frames and (frame == last or not (bridge and shape.kind == "box"))
    }
    return dict(sorted({**ends, **shapes}.items()))


def track_from_boxes(track: BoxTrack, number: int, class_names: Sequence[str], frames: int) -> Track:
    """CVAT's track ``number`` of linked detections in a video of so many ``frames``; boxes in gaps are interpolated."""
    shapes = {frame: Shape("box", tuple(round(side, 2) for side in box.tolist())) for frame, box in track.boxes.items()}
    return Track(class_names[track.label - 1], end_gaps(shapes, frames, bridge=True), number, source="auto")


def join_tracks(annotations: Annotations) -> Annotations:
    """Make a track of a folder's single shapes of one class and kind whose attribute :data:`TRACK` has one number."""
    tracks: list[Track] = []
    parts: dict[tuple[str, ...], dict[int, Shape]] = {}
    for track in annotations.tracks:
        frame, shape = next(iter(track.shapes.items()))
        if track.number is not None or shape.kind == "mask" or not shape.attributes.get(TRACK):
            tracks.append(track)
            continue
        folder = os.path.dirname(annotations.images[frame]) if annotations.images else ""  # each is a video of its own
        shapes = parts.setdefault((track.label, shape.attributes[TRACK], shape.kind, folder), {})
        if frame in shapes:
            where = annotations.images[frame] if annotations.images else f"frame {annotations.start + frame}"
            raise ValueError(f"{annotations}: {where} has two shapes of track {shape.attributes[TRACK]}.")
        attributes = {name: value for name, value in shape.attributes.items() if name != TRACK}
        shapes[frame] = replace(shape, attributes=attributes)
    boxes = [shapes for (_, _, kind, _), shapes in parts.items() if kind == "box"]
    if added := sum(max(shapes) - min(shapes) + 1 - len(shapes) for shapes in boxes):
        advice = "where a polyp was out of sight in between, give its later boxes another number"
        logger.warning(f"{annotations}: adds {added} boxes between those of one number in `{TRACK}`; {advice}.")
    first = 1 + max((track.number for track in tracks if track.number is not None), default=-1)
    for number, ((label, *_), shapes) in enumerate(parts.items(), start=first):
        tracks.append(Track(label, end_gaps(shapes, annotations.frames, bridge=True), number, source="auto"))
    return replace(annotations, tracks=tracks)


def merge_tags(annotations: Annotations, tagged: Annotations) -> Annotations:
    """Add the tags of an export "for images" of the same task, as CVAT leaves them out of one "for video"."""
    has, but = (f"{task.frames} frames of {task.source or annotations.source!r}" for task in (annotations, tagged))
    if has != but:
        raise ValueError(f"{annotations}: has {has}, but {but} where the tags are.")
    return replace(annotations, tags=tagged.tags, left_out={*annotations.left_out, *tagged.left_out})
