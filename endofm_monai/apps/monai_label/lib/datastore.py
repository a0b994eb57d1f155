# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore

from endofm_monai.data import ClipReadError, open_clip, read_mask
from endofm_monai.data.readers.paths import DICOM_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix

SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES + DICOM_SUFFIXES
MASK_SUFFIXES, NOTES_SUFFIXES = (".png",), (".json",)
_NAME = re.compile(r"\w[\w .-]{,149}")


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of images, videos and labels, which takes in nothing that it could not use later.

    What it refuses is answered by an ``HTTPException``. With ``auto_reload`` it looks for files that others put there.
    """

    def __init__(self, folder: str, auto_reload: bool = False) -> None:
        probe = Path(folder, "labels", ".writable")
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise PermissionError(
                f"{folder}: the server cannot write there ({error.strerror}), so it could keep no label; give it the "
                "permission or choose another folder of studies."
            ) from error
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=auto_reload)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image or video, if its name is a plain one and the file is readable."""
        _check_name(image_id)
        if not has_suffix(image_filename, SUFFIXES):
            raise HTTPException(400, f"{image_id}: must be an image or video ({', '.join(SUFFIXES)}).")
        try:
            with open_clip(image_filename) as reader:
                reader.read([0])
        except ClipReadError as error:
            raise HTTPException(400, f"{image_id}: {str(error).partition(': ')[2]}") from error
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Take in a label, if there is such an image that it fits, and the tag is a plain name."""
        self._check_known(image_id)
        _check_name(label_tag)
        check_label(label_filename, self.get_image_uri(image_id))
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels, if there is such an image."""
        self._check_known(image_id)
        super().remove_image(image_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image, if there is such an image."""
        self._check_known(image_id)
        super().update_image_info(image_id, info)

    def _check_known(self, image_id: str) -> None:
        if not self.get_image_uri(image_id):
            raise HTTPException(404, f"There is no image {image_id!r}.")


def check_label(label: str | os.PathLike, image: str) -> None:
    """Check that a file is the label of an image: its mask, or notes on it.

    A mask is a PNG of the image's size with 0 for background and 1 or 255 for foreground. Notes are JSON with
    ``detections``, a list of ``{"label": class, "box": [x1, y1, x2, y2]}`` in pixels (empty where nothing is to be
    seen), or ``label``, the class of the whole image or video, or both. An ``HTTPException`` says that it is not.
    """
    if has_suffix(label, NOTES_SUFFIXES):
        _read_notes(label, image)
    elif not has_suffix(label, MASK_SUFFIXES):
        raise HTTPException(400, f"A label must be .png (a mask) or .json (notes), found {Path(label).suffix!r}.")
    elif not has_suffix(image, IMAGE_SUFFIXES):
        raise HTTPException(400, f"{Path(image).name}: is a video; masks are for its frames, stored as images.")
    else:
        try:
            found, expected = read_mask(Path(label), clean=True).shape, _size(image)
        except ClipReadError as error:
            raise HTTPException(400, f"The mask of {Path(image).name}: {str(error).partition(': ')[2]}.") from error
        if found != expected:
            sizes = "has {}x{} pixels, but the image {}x{}".format(*found, *expected)
            raise HTTPException(400, f"The mask of {Path(image).name}: {sizes}.")


def labeled_frames(task: str, datalist: Sequence[Mapping[str, str]], labels: Mapping[str, int]) -> list[dict[str, Any]]:
    """List the images with labels that a task learns from; those with labels for another task are left out.

    The ``datalist`` has ``image`` and ``label`` files, which are checked once more, ``labels`` the number of a class.
    Items have ``image`` and ``mask``, ``box`` and ``box_label``, or ``label``.
    """
    items: list[dict[str, Any]] = []
    for image, label in ((entry["image"], entry["label"]) for entry in datalist):
        if task == "segmentation":
            if has_suffix(label, MASK_SUFFIXES):
                check_label(label, image)
                items.append({"image": image, "mask": label})
        elif has_suffix(label, NOTES_SUFFIXES):
            notes = _read_notes(label, image)
            if task == "detection" and "detections" in notes:
                boxes = notes["detections"]
                numbers = [_number(box["label"], labels, image) for box in boxes]
                items.append({"image": image, "box": [box["box"] for box in boxes], "box_label": numbers})
            if task == "classification" and "label" in notes:
                items.append({"image": image, "label": _number(notes["label"], labels, image)})
    return items


def _read_notes(label: str | os.PathLike, image: str) -> dict[str, Any]:
    name = Path(image).name
    try:
        notes = json.loads(Path(label).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HTTPException(400, f"The notes on {name} are not readable JSON ({error}).") from error
    if not isinstance(notes, dict) or not {"detections", "label"} & set(notes):
        raise HTTPException(400, f"The notes on {name} must have `detections` or `label`.")
    if not isinstance(notes.get("label", ""), str):
        raise HTTPException(400, f"The notes on {name}: `label` must be the name of a class, found {notes['label']!r}.")
    if boxes := notes.get("detections"):
        if not has_suffix(image, IMAGE_SUFFIXES):
            raise HTTPException(400, f"{name}: is a video; boxes are for its frames, stored as images.")
        for box in boxes:
            _check_box(box, *_size(image), name)
    return notes


def _size(image: str) -> tuple[int, int]:
    with open_clip(image) as reader:
        info = reader.probe()
    return info.height, info.width


def _check_box(box: Any, height: int, width: int, name: str) -> None:
    sides: Any = box.get("box") if isinstance(box, dict) else None
    is_box = isinstance(sides, list) and len(sides) == 4 and all(isinstance(side, (int, float)) for side in sides)
    if not is_box or not isinstance(box.get("label"), str):
        expected = '{"label": class, "box": [x1, y1, x2, y2]}'
        raise HTTPException(400, f"The notes on {name}: a detection is {expected}, found {box}.")
    x1, y1, x2, y2 = sides
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise HTTPException(
            400, f"The notes on {name}: the box {sides} is not inside the image of {width} x {height} pixels."
        )


def _number(name: str, labels: Mapping[str, int], image: str) -> int:
    if name not in labels:
        raise HTTPException(
            400, f"The notes on {Path(image).name}: {name!r} is none of the classes {', '.join(labels)}."
        )
    return labels[name]


def _check_name(name: str) -> None:
    """A name becomes part of a path: nothing but letters, digits, ``_``, ``-``, spaces and dots, none at the start."""
    if not _NAME.fullmatch(name):
        raise HTTPException(
            400, f"{name[:150]!r} is no name for an image or tag: letters, digits, `_`, `-`, `.` and spaces only."
        )
