# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["Annotations", "Shape", "Tag", "Track"]


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
