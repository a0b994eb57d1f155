# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai.data.clip_files import find_clips
from endofm_monai.data.frame_range import split_frames

__all__ = ["load_datalist"]


def load_datalist(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    section: str = "training",
    image_key: str = "image",
    label_key: str = "label",
    required: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """List the clips of a dataset, and check before any training that their files are there.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file in MONAI's decathlon-like format, ``{"training": [{"image": "video.mp4", "label": 1}]}``,
            with paths relative to ``dataset_dir``; ``video.mp4#frames=0-149`` is a part of a video. By default every
            clip below ``dataset_dir`` is listed, see :func:`endofm_monai.data.find_clips`.
        section: the list to take from the JSON file.
        image_key: key of the clip: a path or, for frame images, a list of paths.
        label_key: key of the label, if there is one: strings are paths, anything else is kept as it is.
        required: keys that every item must have.

    Returns:
        the items, with absolute paths.

    Raises:
        FileNotFoundError: when ``dataset_dir``, the JSON file or a listed file does not exist.
        ValueError: when there are no clips, the JSON file is malformed, or an item lacks its image or a ``required``
            key, points outside ``dataset_dir`` (also by a link) or lists the same image as another one.

    Example::

        load_datalist("PolypDiag", "PolypDiag/datalist.json", section="validation")
    """
    if not os.path.isdir(dataset_dir):
        raise FileNotFoundError(f"{dataset_dir}: `dataset_dir` is not an existing folder.")
    root = os.path.realpath(dataset_dir)
    if datalist is None:
        if required:
            raise ValueError(f"{dataset_dir}: without `datalist` the clips have no {', '.join(required)}; give one.")
        clips = [{image_key: str(clip)} for clip in find_clips(root)]
        if not clips:
            raise ValueError(f"{dataset_dir}: holds no video, DICOM or NIfTI file, and no folder of frame images.")
        return clips

    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for index, listed in enumerate(_read_section(datalist, section)):
        where = f"{datalist}: {section}[{index}]"
        item = dict(listed) if isinstance(listed, dict) else {image_key: listed}
        paths = item.get(image_key)
        if not paths or not all(isinstance(path, str) for path in ensure_tuple(paths)):
            raise ValueError(f"{where} needs `{image_key}`, a path or a list of paths, found {listed}.")
        missing = [key for key in required if item.get(key) is None]
        if missing:
            raise ValueError(f"{where} has no {', '.join(missing)}, which this task needs: {item[image_key]}.")
        for key in (image_key, label_key):
            if isinstance(item.get(key), list):
                item[key] = [_resolve(entry, root, f"{where} {key}") for entry in item[key]]
            elif key in item:
                item[key] = _resolve(item[key], root, f"{where} {key}")
        first = seen.setdefault(str(item[image_key]), index)
        if first != index:
            raise ValueError(f"{where} lists the same {image_key} as {section}[{first}]: {item[image_key]}.")
        items.append(item)
    return items


def _read_section(datalist: str | os.PathLike, section: str) -> list[Any]:
    with open(datalist, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{datalist}: is not valid JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get(section), list):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{datalist}: needs the list `{section}`, found {found}.")
    if not content[section]:
        raise ValueError(f"{datalist}: the list `{section}` is empty.")
    return content[section]


def _resolve(value: Any, root: str, where: str) -> Any:
    """Make a path absolute, and check that it exists and lies in ``root``; leave what is no string as it is."""
    if not isinstance(value, str):
        return value
    path = os.path.normpath(os.path.join(root, value))
    try:
        real = os.path.realpath(split_frames(path)[0], strict=True)
    except OSError as error:
        raise FileNotFoundError(f"{where}: {path} does not exist.") from error
    if os.path.commonpath([real, root]) != root:
        raise ValueError(f"{where}: {value} lies outside the dataset's folder {root}.")
    return path
