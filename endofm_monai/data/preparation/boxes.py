# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from endofm_monai.data.clip_files import frame_images, natural_key
from endofm_monai.data.clip_reader import ClipReadError
from endofm_monai.data.preparation.source_video import SourceVideo

__all__ = ["FrameBoxes", "read_boxed_video"]


class FrameBoxes(NamedTuple):
    """What is annotated in a frame.

    Args:
        boxes: ``x1, y1, x2, y2`` of each box in pixels, exactly as the file states them.
        labels: the class of each.
        size: width and height of the frame as the file states them; ``None`` where it does not.
    """

    boxes: list[list[float]]
    labels: list[int]
    size: tuple[int, int] | None = None


def read_boxed_video(
    name: str, images: Path, annotations: Path, suffix: str, read: Callable[[Path], FrameBoxes], **fields: Any
) -> SourceVideo:
    """Make a video of a folder of frames and a folder with one file of boxes a frame, of the same name.

    Boxes that reach out of the frame are clamped to its first and last pixels. What is then empty is left out, and
    noted, and so are annotations without a frame, and files that state another size than their image has.

    Args:
        name: see :class:`endofm_monai.data.preparation.SourceVideo`.
        images: folder of the frames.
        annotations: folder of the boxes.
        suffix: of the files with boxes.
        read: reads one; what it raises of ``OSError`` and ``ValueError`` says why it cannot be used.
        fields: further arguments of the video.

    Raises:
        ClipReadError: when the image or the boxes of a frame are missing or cannot be read, or a box is not finite or
            inverted: left out, it would make a frame with a polyp one without.
    """
    frames = frame_images(images)
    notes, boxes, labels = [], [], []
    for frame in frames:
        path = annotations / f"{frame.stem}{suffix}"
        try:
            found = read(path)
            if wrong := [box for box in found.boxes if not _is_possible(box)]:
                raise ValueError(f"{wrong[0]} is not finite or inverted; expected x1 <= x2 and y1 <= y2")
        except (OSError, ValueError) as error:
            raise ClipReadError(f"{path}: holds no readable boxes ({error})") from error
        try:
            with Image.open(frame) as image:
                size = image.size
        except OSError as error:
            raise ClipReadError(f"{frame}: is no readable image ({error})") from error
        if found.size not in (None, size):
            notes.append(f"{path}: states a size of {found.size}, but the image has {size}; that counts")
        clamped = [_clamp(box, size) for box in found.boxes]
        kept = [place for place, box in enumerate(clamped) if box[0] < box[2] and box[1] < box[3]]
        notes += [
            f"{path}: the box {box} is left out, as nothing of it is in the frame"
            for place, box in enumerate(found.boxes)
            if place not in kept
        ]
        boxes.append([clamped[place] for place in kept])
        labels.append([found.labels[place] for place in kept])
    stems = {frame.stem for frame in frames}
    for path in sorted(annotations.glob(f"*{suffix}"), key=lambda path: natural_key(path.name)):
        if path.stem not in stems:
            notes.append(f"{path}: belongs to no image in {images}")
    return SourceVideo(name, frames, frame_labels={"box": boxes, "box_label": labels}, notes=notes, **fields)


def _is_possible(box: list[float]) -> bool:
    return all(map(math.isfinite, box)) and box[0] <= box[2] and box[1] <= box[3]


def _clamp(box: list[float], size: tuple[int, int]) -> list[float]:
    box = [min(max(value, 0), size[axis % 2] - 1) for axis, value in enumerate(box)]
    return [int(value) if float(value).is_integer() else value for value in box]
