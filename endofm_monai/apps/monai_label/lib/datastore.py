# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import filecmp
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel

from endofm_monai.apps.monai_label.lib.clips import is_frame, until_changed
from endofm_monai.apps.monai_label.lib.requests import Notes, parse
from endofm_monai.data import ClipReadError, check_box, check_mask, open_clip, read_mask
from endofm_monai.data.readers.base import DICOM_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix, is_hidden
from endofm_monai.data.readers.opener import is_dicom_image, log_unused
from endofm_monai.utils import PathLike, atomic_path, check_writable, remove_leftovers, write_json

logger = logging.getLogger(__name__)

SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES + DICOM_SUFFIXES
MASK_SUFFIXES, NOTES_SUFFIXES = (".png",), (".json",)
MAX_NAME_BYTES = 150  # a file system takes 255, of which some are for a suffix, and while it is written for a prefix


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of images, videos and labels, which takes in nothing that it could not use later.

    The id of a file is its name without the suffix, of a DICOM file without one (``1.2.840.113.7``) the whole name.
    What it refuses is answered by an ``HTTPException``. With ``auto_reload`` it looks for files that others put there.
    Files are whole or not there, whenever the server is killed; an unreadable ``datastore_v2.json`` is made anew of
    images and labels. Several processes may write, as the server starts one for a scoring.
    """

    def __init__(self, folder: str, auto_reload: bool = False) -> None:
        try:
            check_writable(Path(folder, "labels"))
            remove_leftovers(folder, "**/")
            _mend(Path(folder, "datastore_v2.json"))
        except OSError as error:
            raise PermissionError(
                f"{folder}: the server cannot write there ({error.strerror}), so it could keep no label; give it the "
                "permission or choose another folder of studies."
            ) from error
        self._lock, self._file = FileLock(Path(folder, ".lock")), (0, 0)
        super().__init__(folder, extensions=["[!.]*"], auto_reload=auto_reload)
        if auto_reload:  # MONAI Label looks for files that begin, not for those that get their end or their name
            self._handler.on_moved = self._handler.on_closed = self._on_whole
        self._tell_what_is_left_out(folder)

    def _tell_what_is_left_out(self, folder: str) -> None:
        listed = self._list_files(folder, ())
        for name in listed:
            image, suffix = self._to_id(name)
            used = self._datastore.objects[image].image.ext
            if suffix != used:
                logger.warning(f"{folder}: {name} is left out, as {image}{used} has its name; rename one.")
        others = [entry for entry in os.scandir(folder) if entry.name not in listed and not is_hidden(entry.name)]
        index = Path(self._datastore_config_path).stem
        log_unused(folder, [entry.name for entry in others if not entry.is_dir() and Path(entry.name).stem != index])
        if folders := [entry.name for entry in others if entry.is_dir() and entry.name != self._datastore.labels_dir]:
            logger.warning(f"{folder}: {len(folders)} folders are not looked into: {', '.join(folders[:10])}")

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image or video, if its name is a plain one, the file is readable, and no label is of another."""
        _check_name(image_id)
        if not _is_image(Path(image_filename)):
            raise HTTPException(400, f"{image_id}: must be an image or video ({', '.join(SUFFIXES)}), or DICOM.")
        with _reading(image_id), open_clip(image_filename) as reader:
            reader.read([0])
        with self._changing():
            former = self.get_image_uri(image_id)
            if former and self.get_labels_by_image_id(image_id):
                if not filecmp.cmp(former, image_filename, shallow=False):
                    raise HTTPException(409, f"{image_id}: another image of this name has labels: remove it before.")
                return image_id
            image = self._store(image_id, image_filename, self._datastore.image_path(), image_info)
            self._datastore.objects[image_id] = ImageLabelModel(image=image)
        self._forget(former, self.get_image_uri(image_id))
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Take in a label, if there is such an image that it fits, and the tag is a plain name."""
        _check_name(label_tag)
        with self._changing():
            self._check_known(image_id)
            check_label(label_filename, self.get_image_uri(image_id))
            former = self.get_label_uri(image_id, label_tag)
            label = self._store(image_id, label_filename, self._datastore.label_path(label_tag), label_info)
            self._datastore.objects[image_id].labels[label_tag] = label
        self._forget(former, self.get_label_uri(image_id, label_tag))
        return image_id

    def _store(self, name: str, source: str, folder: str, info: dict[str, Any]) -> DataModel:
        suffix = self._to_id(source)[1] or DICOM_SUFFIXES[0]  # by which it is found under any name
        with atomic_path(Path(folder, name + suffix)) as temporary:
            shutil.copyfile(source, temporary)
        return DataModel(info={**_notes(info), "ts": int(time.time()), "name": name + suffix}, ext=suffix)

    def _forget(self, former: str, present: str) -> None:
        if former not in ("", present):  # the same name with another suffix
            Path(former).unlink(missing_ok=True)

    def get_image_uri(self, image_id: str) -> str:
        """The path of an image in the folder, also of a link: what that leads to is not the server's to remove."""
        entry = self._datastore.objects.get(image_id)
        return os.path.abspath(Path(self._datastore.image_path(), image_id + entry.image.ext)) if entry else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Likewise of a label."""
        label = self._datastore.label(label_id, label_tag)
        return os.path.abspath(Path(self._datastore.label_path(label_tag), label_id + label.ext)) if label else ""

    def remove_image(self, image_id: str) -> None:
        self._check_known(image_id)
        if os.path.islink(path := self.get_image_uri(image_id)):  # MONAI Label removes what it leads to
            os.unlink(path)
        super().remove_image(image_id)
        self.refresh()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        self._check_known(label_id, label_tag)
        super().remove_label(label_id, label_tag)
        self.refresh()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._changing():
            self._check_known(image_id)
            self._datastore.objects[image_id].image.info.update(_notes(info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._changing():
            self._check_known(label_id, label_tag)
            self._datastore.objects[label_id].labels[label_tag].info.update(_notes(info))

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        """Images, or labels, the latest first; of MONAI Label the latter would have the suffixes of images."""
        files = [file for file in os.scandir(path) if not file.name.startswith(".") and file.is_file()]
        if os.path.realpath(path) == os.path.realpath(self._datastore.image_path()):
            names = sorted(file.name for file in files if _is_image(Path(file)))
        else:
            files.sort(key=lambda file: -file.stat().st_mtime)
            names = [file.name for file in files if has_suffix(file.name, MASK_SUFFIXES + NOTES_SUFFIXES)]
        return {name: name for name in names}

    def _to_id(self, file: str) -> tuple[str, str]:
        name = Path(file)
        return (name.stem, name.suffix) if has_suffix(file, SUFFIXES + NOTES_SUFFIXES) else (name.name, "")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the index as it is now, and hold it meanwhile; that the disk is full, say, is answered."""
        with self._lock:
            try:
                self._init_from_datastore_file()
                yield
                self._update_datastore_file()
            except OSError as error:
                name = os.path.basename(error.filename or "")
                raise HTTPException(507, f"{name}: is not stored ({error.strerror}).") from error

    def _on_whole(self, event: Any) -> None:
        if event.dest_path == self._datastore_config_path:  # as after each score
            self._init_from_datastore_file()
        else:
            self.refresh()

    def _reconcile_datastore(self) -> None:
        with self._lock:
            super()._reconcile_datastore()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        index = Path(self._datastore_config_path)
        with self._lock:
            if index.exists() and (file := _identity(index)) != self._file:
                self._datastore = LocalDatastoreModel.model_validate_json(index.read_bytes())
                self._datastore.base_path = self._datastore_path
                self._file = file

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._lock:
            write_json(self._datastore_config_path, self._datastore.model_dump(exclude={"base_path"}))
            self._file = _identity(self._datastore_config_path)

    def _check_known(self, image_id: str, tag: str | None = None) -> None:
        if not self.get_image_uri(image_id):
            raise HTTPException(404, f"There is no image {image_id!r}.")
        if tag is not None and not self.get_label_uri(image_id, tag):
            raise HTTPException(404, f"There is no label {tag!r} of {image_id!r}.")


def _is_image(path: Path) -> bool:
    if has_suffix(path, IMAGE_SUFFIXES + VIDEO_SUFFIXES):
        return True
    with suppress(FileNotFoundError):  # perhaps it has been removed meanwhile
        return _is_dicom(path)
    return False


_is_dicom = until_changed(is_dicom_image)


def _identity(file: PathLike) -> tuple[int, int]:
    """What tells a file from others of its name, of the same moment too."""
    found = os.stat(file)
    return found.st_ino, found.st_mtime_ns


def _notes(info: dict[str, Any]) -> dict[str, Any]:
    return parse(Notes, info).model_dump(exclude_unset=True)


def _mend(index: Path) -> None:
    """Put an unreadable index aside, and notes that nobody could read."""
    if not index.exists():
        return
    try:
        content = LocalDatastoreModel.model_validate_json(index.read_bytes())
    except ValueError as error:
        os.replace(index, index.with_suffix(".unreadable"))
        logger.warning(f"{index}: is not readable ({str(error).splitlines()[0]}); made anew of the files beside it.")
        return
    for name, entry in content.objects.items():
        for part in (entry.image, *entry.labels.values()):
            try:
                part.info = _notes(part.info)
            except HTTPException as error:
                logger.warning(f"{index}: what is noted of {name} is left out: {error.detail}")
                part.info = {}
    write_json(index, content.model_dump(exclude={"base_path"}))


def check_label(label: PathLike, image: str) -> None:
    """Check that a file is the label of an image, its mask or notes on it; an ``HTTPException`` says that it is not.

    A mask is a PNG of the image's size with 0 for background and 1 or 255 for foreground. Notes are JSON with
    ``detections``, a list of ``{"label": class, "box": [x1, y1, x2, y2]}`` in pixels (empty where nothing is to be
    seen), or ``label``, the class of the whole image or video, or both.
    """
    if has_suffix(label, NOTES_SUFFIXES):
        _read_notes(label, image)
    elif not has_suffix(label, MASK_SUFFIXES):
        raise HTTPException(400, f"A label must be .png (a mask) or .json (notes), found {Path(label).suffix!r}.")
    elif not is_frame(image):
        raise HTTPException(400, f"{Path(image).name}: is a video; masks are for its frames, stored as images.")
    else:
        with _reading(f"The mask of {Path(image).name}"):
            check_mask(read_mask(label, clean=True), *_size(image), label)


def labeled_frames(task: str, datalist: Sequence[Mapping[str, str]], labels: Mapping[str, int]) -> list[dict[str, Any]]:
    """List what a task learns from: items of ``image``, and of ``mask``, ``box`` and ``box_label``, or ``label``.

    Images with labels for another task are left out. The ``datalist`` has ``image`` and ``label`` files, which are
    checked once more; ``labels`` has the number of a class.
    """
    items: list[dict[str, Any]] = []
    for image, label in map(itemgetter("image", "label"), datalist):
        if task == "segmentation":
            if has_suffix(label, MASK_SUFFIXES):
                check_label(label, image)
                items.append({"image": image, "mask": label})
        elif has_suffix(label, NOTES_SUFFIXES):
            notes = _read_notes(label, image)
            if task == "detection" and "detections" in notes and is_frame(image):
                boxes = notes["detections"]
                numbers = [_number(box["label"], labels, image) for box in boxes]
                items.append({"image": image, "box": [box["box"] for box in boxes], "box_label": numbers})
            if task == "classification" and "label" in notes:
                items.append({"image": image, "label": _number(notes["label"], labels, image)})
    return items


def _read_notes(label: PathLike, image: str) -> dict[str, Any]:
    name = Path(image).name
    try:
        notes = json.loads(Path(label).read_bytes())  # which may begin with a mark
    except (OSError, ValueError, RecursionError) as error:
        raise HTTPException(400, f"The notes on {name} are not readable JSON ({error}).") from error
    if not isinstance(notes, dict) or not {"detections", "label"} & set(notes):
        raise HTTPException(400, f"The notes on {name} must have `detections` or `label`.")
    if not isinstance(notes.get("label", ""), str):
        raise HTTPException(400, f"The notes on {name}: `label` must be the name of a class, found {notes['label']!r}.")
    boxes = notes.get("detections", [])
    if not isinstance(boxes, list):
        raise HTTPException(400, f"The notes on {name}: `detections` must be a list of boxes, found {boxes!r}.")
    if boxes and not is_frame(image):
        raise HTTPException(400, f"{name}: is a video; boxes are for its frames, stored as images.")
    height, width = _size(image) if boxes else (0, 0)
    for box in boxes:
        if not isinstance(box, dict) or not isinstance(box.get("label"), str):
            expected = '{"label": class, "box": [x1, y1, x2, y2]}'
            raise HTTPException(400, f"The notes on {name}: a detection is {expected}, found {box}.")
        sides: Any = box.get("box")
        with _reading(f"The notes on {name}"):
            check_box(sides, "notes")
        if not (min(sides) >= 0 and sides[2] <= width and sides[3] <= height):
            raise HTTPException(400, f"The notes on {name}: {sides} is not inside the image of {width} x {height}.")
    return notes


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Answer that something cannot be read, without its path, which is none of a client's."""
    try:
        yield
    except ClipReadError as error:
        raise HTTPException(400, f"{what}: {str(error).partition(': ')[2].removesuffix('.')}.") from error


def _size(image: str) -> tuple[int, int]:
    with _reading(Path(image).name), open_clip(image) as reader:
        info = reader.probe()
    return info.height, info.width


def _number(name: str, labels: Mapping[str, int], image: str) -> int:
    if name not in labels:
        reason = f"{name!r} is none of the classes {', '.join(labels)}"
        raise HTTPException(400, f"The notes on {Path(image).name}: {reason}.")
    return labels[name]


def _check_name(name: str) -> None:
    """A name becomes part of a path: nothing but letters, digits, ``_``, ``-``, spaces and dots, none at the start."""
    if not re.fullmatch(r"\w[\w .-]*", name) or len(name.encode()) > MAX_NAME_BYTES:
        signs = f"letters, digits, `_`, `-`, `.` and spaces only, in {MAX_NAME_BYTES} bytes at most"
        raise HTTPException(400, f"{name[:150]!r} is no name for an image or tag: {signs}.")
