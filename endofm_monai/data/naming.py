# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai.data.readers.base import split_frames
from endofm_monai.data.readers.paths import DICOM_SUFFIXES, IMAGE_SUFFIXES, NIFTI_SUFFIXES, VIDEO_SUFFIXES

__all__ = ["clip_names", "name_clips", "name_videos"]

_SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES


def clip_names(clips: Sequence[Any], root: str | os.PathLike) -> list[str]:
    """Name the results of clips, so that no two of a list have one name.

    A clip has the name of its path from ``root`` on without suffix, a part of a video ``<video>_<first>-<last>`` and a
    list of frames ``<folder>/<first>-<last>``. Where names would be the same (``a.mp4`` and ``a.avi``), the second
    gets ``_2`` and so on.

    Args:
        clips: paths, or lists of the paths of frames.
        root: folder that names begin in.

    Returns:
        names in the form of relative paths, with ``/`` between their parts.
    """
    return _unique(_name(clip, root) for clip in clips)


def name_clips(items: Sequence[dict[str, Any]], root: str | os.PathLike) -> list[dict[str, Any]]:
    """Give items ``name``, the unique name of their ``image``, and those without one ``video``, the same.

    Several clips may be of one ``video``; see :func:`clip_names`.
    """
    names = clip_names([item["image"] for item in items], root)
    return [{"video": name, **item, "name": name} for item, name in zip(items, names, strict=True)]


def name_videos(items: Sequence[dict[str, Any]], root: str | os.PathLike) -> list[dict[str, Any]]:
    """Give each item without one a ``video``: the path in ``root`` of its ``image``, or of its first frame.

    The root itself has its own name, and a list of frames that begins as a former one gets ``_2`` and so on.
    """
    root = os.path.realpath(root)
    paths = (os.path.relpath(ensure_tuple(item["image"])[0], root) for item in items)
    names = _unique(os.path.basename(root) if path == "." else path for path in paths)
    return [{"video": name, **item} for item, name in zip(items, names, strict=True)]


def _unique(names: Iterable[str]) -> list[str]:
    made: dict[str, None] = {}
    for base in names:
        name, count = base, 1
        while name in made:
            count += 1
            name = f"{base}_{count}"
        made[name] = None
    return list(made)


def _name(clip: Any, root: str | os.PathLike) -> str:
    paths = [os.fspath(path) for path in ensure_tuple(clip)]
    path, frames = split_frames(paths[0])
    parts = [part for part in Path(os.path.relpath(path, os.path.realpath(root))).parts if part != ".."]
    name = _without_suffix("/".join(parts) or os.path.basename(os.path.realpath(path)))
    if len(paths) > 1:
        return f"{name}-{_without_suffix(os.path.basename(paths[-1]))}"
    return name if frames is None else f"{name}_{frames[0]}-{frames[1]}"


def _without_suffix(name: str) -> str:
    found = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(found)]
