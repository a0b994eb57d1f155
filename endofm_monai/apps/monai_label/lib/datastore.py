# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore

from endofm_monai.apps.monai_label.lib.labels import LabelError, check_label
from endofm_monai.data import ClipReadError, open_clip
from endofm_monai.data.readers.paths import DICOM_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix

__all__ = ["CheckedDatastore"]

SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES + DICOM_SUFFIXES
_NAME = re.compile(r"\w[\w .-]*")


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of images, videos and labels, which takes in nothing that it could not use later.

    Args:
        folder: the folder.
        auto_reload: watch it for images and labels that others put there.

    Raises:
        PermissionError: when nothing can be written there.
    """

    def __init__(self, folder: str, auto_reload: bool = False) -> None:
        try:
            os.makedirs(os.path.join(folder, "labels"), exist_ok=True)
            probe = Path(folder, "labels", ".writable")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise PermissionError(
                f"{folder}: the server cannot write there ({error.strerror}), so it could keep no label; give it the "
                "permission or choose another folder of studies."
            ) from error
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=auto_reload)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an image or video.

        Raises:
            HTTPException: when its name is no plain name, or the file is not readable.
        """
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
        """Take in a label.

        Raises:
            HTTPException: when there is no such image, the tag is no plain name, or the label does not fit the image.
        """
        self._check_known(image_id)
        _check_name(label_tag)
        try:
            check_label(label_filename, self.get_image_uri(image_id))
        except LabelError as error:
            raise HTTPException(400, str(error)) from error
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels; raises an ``HTTPException`` when there is no such image."""
        self._check_known(image_id)
        super().remove_image(image_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image; raises an ``HTTPException`` when there is no such image."""
        self._check_known(image_id)
        super().update_image_info(image_id, info)

    def _check_known(self, image_id: str) -> None:
        if not self.get_image_uri(image_id):
            raise HTTPException(404, f"There is no image {image_id!r}.")


def _check_name(name: str) -> None:
    """A name becomes part of a path: nothing but letters, digits, ``_``, ``-``, spaces and dots, none at the start."""
    if not _NAME.fullmatch(name) or len(name) > 150:
        raise HTTPException(
            400, f"{name[:150]!r} is no name for an image or tag: letters, digits, `_`, `-`, `.` and spaces only."
        )
