# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endofm_monai.apps.monai_label.lib.clip_context import runs
from endofm_monai.data import ClipReadError, open_clip
from endofm_monai.data.readers.paths import IMAGE_SUFFIXES, has_suffix
from endofm_monai.transforms import LoadClip, LoadMasks

__all__ = ["LabelError", "check_label", "join_frames_of_clips", "labeled_frames"]

MASK_SUFFIX, NOTES_SUFFIX = ".png", ".json"


class LabelError(ValueError):
    """A label file that does not fit its image; the message says what was expected."""


def check_label(label: str | os.PathLike, image: str) -> None:
    """Check that a file is the label of an image: its mask, or notes on it.

    A mask is a PNG of the image's size with 0 for background and 1 or 255 for foreground. Notes are JSON with
    ``detections``, a list of ``{"label": class, "box": [x1, y1, x2, y2]}`` in pixels (empty where nothing is to be
    seen), or ``label``, the class of the whole image or video, or both.

    Raises:
        LabelError: when it is not.
    """
    if has_suffix(label, (MASK_SUFFIX,)):
        if not has_suffix(image, IMAGE_SUFFIXES):
            raise LabelError(f"{Path(image).name}: is a video; masks are for its frames, stored as images.")
        try:
            LoadMasks()(label, LoadClip()(image))
        except ClipReadError as error:
            raise LabelError(f"The mask of {Path(image).name}: {str(error).partition(': ')[2]}.") from error
    elif has_suffix(label, (NOTES_SUFFIX,)):
        _read_notes(label, image)
    else:
        raise LabelError(
            f"A label must be {MASK_SUFFIX} (a mask) or {NOTES_SUFFIX} (notes), found {Path(label).suffix!r}."
        )


def labeled_frames(task: str, datalist: Sequence[Mapping[str, str]], labels: Mapping[str, int]) -> list[dict[str, Any]]:
    """List the images with labels that a task learns from.

    Args:
        task: ``"segmentation"``, ``"detection"`` or ``"classification"``.
        datalist: ``image`` and ``label`` files.
        labels: number of each class.

    Returns:
        items with ``image`` and ``mask``, ``box`` and ``box_label``, or ``label``; images with labels for another task
        are left out.

    Raises:
        LabelError: when a label does not fit its image or names an unknown class.
    """
    items: list[dict[str, Any]] = []
    for entry in datalist:
        image, label = entry["image"], entry["label"]
        is_mask = has_suffix(label, (MASK_SUFFIX,))
        if task == "segmentation" and is_mask:
            check_label(label, image)
            items.append({"image": image, "mask": label})
        if is_mask or not has_suffix(label, (NOTES_SUFFIX,)):
            continue
        notes = _read_notes(label, image)
        if task == "detection" and "detections" in notes:
            found = notes["detections"]
            numbers = [_number(box["label"], labels, image) for box in found]
            items.append({"image": image, "box": [box["box"] for box in found], "box_label": numbers})
        if task == "classification" and "label" in notes:
            items.append({"image": image, "label": _number(notes["label"], labels, image)})
    return items


def join_frames_of_clips(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make clips of the items of neighboring frames, so that the network learns from frames in their order.

    Frames of different classes are not joined; videos and images without a number stay as they are, images as clips of
    one frame.
    """
    clips: list[dict[str, Any]] = []
    for label in dict.fromkeys(item.get("label") for item in items):
        alike = [item for item in items if item.get("label") == label]
        clips += [item for item in alike if not has_suffix(item["image"], IMAGE_SUFFIXES)]
        frames = [item for item in alike if has_suffix(item["image"], IMAGE_SUFFIXES)]
        for run in runs([item["image"] for item in frames]):
            clip = {key: [frames[index][key] for index in run] for key in frames[0]}
            clips.append({**clip, "label": label} if label is not None else clip)
    return clips


def _read_notes(label: str | os.PathLike, image: str) -> dict[str, Any]:
    name = Path(image).name
    try:
        notes = json.loads(Path(label).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabelError(f"The notes on {name} are not readable JSON ({error}).") from error
    if not isinstance(notes, dict) or not {"detections", "label"} & set(notes):
        raise LabelError(f"The notes on {name} must have `detections` or `label`.")
    if not isinstance(notes.get("label", ""), str):
        raise LabelError(f"The notes on {name}: `label` must be the name of a class, found {notes['label']!r}.")
    boxes = notes.get("detections", [])
    if boxes and not has_suffix(image, IMAGE_SUFFIXES):
        raise LabelError(f"{name}: is a video; boxes are for its frames, stored as images.")
    if boxes:
        with open_clip(image) as reader:
            info = reader.probe()
        for box in boxes:
            _check_box(box, info.height, info.width, name)
    return notes


def _check_box(box: Any, height: int, width: int, name: str) -> None:
    sides: Any = box.get("box") if isinstance(box, dict) else None
    numbers = [side for side in sides if isinstance(side, (int, float))] if isinstance(sides, list) else []
    if len(numbers) != 4 or len(sides) != 4 or not isinstance(box.get("label"), str):
        raise LabelError(
            f'The notes on {name}: a detection is {{"label": class, "box": [x1, y1, x2, y2]}}, found {box}.'
        )
    x1, y1, x2, y2 = numbers
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise LabelError(f"The notes on {name}: the box {sides} is not inside the image of {width} x {height} pixels.")


def _number(name: str, labels: Mapping[str, int], image: str) -> int:
    if name not in labels:
        raise LabelError(f"The notes on {Path(image).name}: {name!r} is none of the classes {', '.join(labels)}.")
    return labels[name]
