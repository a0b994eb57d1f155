# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from endofm_monai.apps.cvat.annotations import Annotations, Shape, Track
from endofm_monai.apps.linking import BoxTrack

__all__ = ["TRACK", "join_tracks", "track_from_boxes", "track_from_shapes"]

TRACK = "track"
"""Attribute of single shapes with the number of the polyp that they show, where tracks cannot be uploaded."""


def track_from_boxes(track: BoxTrack, number: int, class_names: Sequence[str], frames: int) -> Track:
    """Make CVAT's track of linked detections; see :func:`track_from_shapes`.

    Args:
        track: see :func:`endofm_monai.apps.linking.link_boxes`.
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
