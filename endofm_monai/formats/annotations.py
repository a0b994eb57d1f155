# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from endofm_monai.inferers.linking import BoxTrack

__all__ = ["TRACK", "Annotations", "Shape", "Tag", "Track", "join_tracks", "track_from_boxes", "track_from_shapes"]


@dataclass(frozen=True)
class Shape:
    """What is drawn in one frame, in CVAT's coordinates: pixel (0, 0) reaches from 0 to 1.

    Args:
        kind: ``"box"``, ``"polygon"`` or ``"mask"``.
        points: of a box ``x1, y1, x2, y2``; of a polygon ``x, y`` of each corner; of a mask ``left, top, width,
            height`` of a rectangle, then the lengths of runs of 0 and 1 in turn, row by row of the rectangle, 0 first.
        keyframe: drawn by somebody, and not interpolated.
        outside: the object is not to be seen, from this frame on.
        occluded: something is before it.
        z_order: layer.
        attributes: whatever else CVAT's label asks for.
    """

    kind: str
    points: tuple[float, ...]
    keyframe: bool = True
    outside: bool = False
    occluded: bool = False
    z_order: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Track:
    """An object in the frames of a video.

    Args:
        label: name of its class.
        shapes: by frame, in order, as far as they are listed.
        number: number of the track; None for what was drawn in one frame, with no relation to other frames.
        group: number of CVAT's group; 0 for none.
        source: ``"manual"``, ``"auto"``, ...
    """

    label: str
    shapes: Mapping[int, Shape]
    number: int | None = None
    group: int = 0
    source: str = "manual"

    def visible(self, frames: int) -> dict[int, Shape]:
        """The shapes of all frames in which the object is to be seen.

        Between listed frames shapes are interpolated linearly, and the last one stays until the end of the video, as
        CVAT does.

        Args:
            frames: number of frames of the video.

        Raises:
            ValueError: when a mask, or polygons with different numbers of corners, would have to be interpolated.
        """
        found: dict[int, Shape] = {}
        listed = sorted(self.shapes)
        for place, frame in enumerate(listed):
            shape = self.shapes[frame]
            if shape.outside:
                continue
            found[frame] = shape
            if self.number is None:
                continue
            following = listed[place + 1] if place + 1 < len(listed) else frames
            target = self.shapes.get(following, shape)
            for between in range(frame + 1, following):
                share = (between - frame) / (following - frame)
                points = _interpolate(shape, shape if target.outside else target, share)
                found[between] = replace(shape, points=points, keyframe=False)
        return found


@dataclass(frozen=True)
class Tag:
    """A class that a whole frame is given.

    Args:
        label: name of the class.
        attributes: whatever else CVAT's label asks for.
        source: ``"manual"``, ``"auto"``, ...
    """

    label: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: str = "manual"


@dataclass(frozen=True)
class Annotations:
    """What CVAT knows of a task: a video, or a list of images.

    Args:
        name: name of the task.
        frames: number of frames, which count from 0.
        width: columns of a frame in pixels.
        height: rows of a frame in pixels.
        labels: names of the classes.
        tracks: the objects, in order.
        tags: the tags of the frames that have some.
        images: names of the frames, for a task of images.
        source: file name of the video, for a task of one.
        start: number of the video's frame that is frame 0 here.
    """

    name: str
    frames: int
    width: int
    height: int
    labels: Sequence[str]
    tracks: Sequence[Track] = ()
    tags: Mapping[int, Sequence[Tag]] = field(default_factory=dict)
    images: Sequence[str] = ()
    source: str = ""
    start: int = 0


def _interpolate(shape: Shape, target: Shape, share: float) -> tuple[float, ...]:
    if shape.points == target.points and shape.kind != "mask":
        return shape.points
    if shape.kind == "mask" or len(shape.points) != len(target.points):
        raise ValueError(
            f"a {shape.kind} cannot be interpolated to a {target.kind} with another number of corners; export from "
            'CVAT as "CVAT for video 1.1", which lists every frame'
        )
    points = np.array(shape.points) * (1 - share) + np.array(target.points) * share
    return tuple(points.round(2).tolist())


TRACK = "track"
"""Attribute of single shapes with the number of the polyp that they show, where tracks cannot be uploaded."""


def track_from_boxes(track: BoxTrack, number: int, class_names: Sequence[str], frames: int) -> Track:
    """Make CVAT's track of linked detections; see :func:`track_from_shapes`.

    Args:
        track: see :func:`endofm_monai.inferers.linking.link_boxes`.
        number: number of the track.
        class_names: names of the classes, from 1 on.
        frames: number of frames of the video.
    """
    shapes = {
        frame: Shape("box", tuple(round(float(side), 2) for side in box.tolist())) for frame, box in track.boxes.items()
    }
    return track_from_shapes(shapes, class_names[track.label - 1], number, frames)


def track_from_shapes(shapes: Mapping[int, Shape], label: str, number: int, frames: int) -> Track:
    """Make CVAT's track of a polyp's shapes by frame.

    It ends after its last one. Boxes are interpolated where there is none between; polygons, which cannot be, are
    outside there.

    Args:
        shapes: by frame, in order; boxes or polygons.
        label: name of the class.
        number: number of the track.
        frames: number of frames of the video.
    """
    listed = dict(shapes)
    for frame, shape in shapes.items():
        is_last = frame == max(shapes)
        if frame + 1 < frames and frame + 1 not in shapes and (is_last or shape.kind != "box"):
            listed[frame + 1] = replace(shape, outside=True)
    return Track(label, dict(sorted(listed.items())), number, source="auto")


def join_tracks(annotations: Annotations) -> Annotations:
    """Make tracks of single shapes that have the attribute ``track``, as ``function.py`` gives them.

    Args:
        annotations: see :func:`endofm_monai.apps.cvat.read_cvat_xml`; other objects stay.

    Returns:
        the annotations, in which shapes of one class and number are a track without the attribute.

    Raises:
        ValueError: when two of them are in one frame.
    """
    tracks = [track for track in annotations.tracks if not _is_part(track)]
    number = 1 + max((track.number for track in tracks if track.number is not None), default=-1)
    parts: dict[tuple[str, str, str], dict[int, Shape]] = {}
    for part in annotations.tracks:
        if _is_part(part):
            ((frame, shape),) = part.shapes.items()
            attributes = {name: value for name, value in shape.attributes.items() if name != TRACK}
            shapes = parts.setdefault((part.label, shape.attributes[TRACK], shape.kind), {})
            if frame in shapes:
                raise ValueError(
                    f"{annotations.name}: frame {frame} has two shapes of track {shape.attributes[TRACK]}."
                )
            shapes[frame] = replace(shape, attributes=attributes)
    joined: Iterable[Track] = (
        track_from_shapes(dict(sorted(shapes.items())), label, number + place, annotations.frames)
        for place, ((label, _, _), shapes) in enumerate(parts.items())
    )
    return replace(annotations, tracks=[*tracks, *joined])


def _is_part(track: Track) -> bool:
    (shape, *_) = track.shapes.values()
    return track.number is None and shape.kind != "mask" and bool(shape.attributes.get(TRACK))
