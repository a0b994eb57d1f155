# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from endofm_monai.data.clip_files import frame_images, natural_key
from endofm_monai.utils import TEMPORARY_PREFIX, atomic_path

__all__ = [
    "clean_name",
    "images_by_stem",
    "name_share",
    "relative",
    "remove_leftovers",
    "subfolders",
    "write_json",
]


def clean_name(path: str) -> str:
    """Make a video's name of its path: other characters than letters, digits, ``._-`` and ``/`` become ``_``."""
    return "/".join(re.sub(r"[^A-Za-z0-9._-]", "_", part).lstrip("._-") or "_" for part in path.split("/"))


def name_share(name: str) -> float:
    """Give a number from 0 to 1 that depends on nothing but a name, to split a set that others will be added to."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def images_by_stem(folder: Path) -> dict[str, Path]:
    """List the images in a folder by their names without suffix, in natural order.

    Raises:
        ValueError: when two differ in their suffix only, so that it is not clear which one is meant.
    """
    images: dict[str, Path] = {}
    for path in frame_images(folder):
        if path.stem in images:
            raise ValueError(f"{folder}: holds both {images[path.stem].name} and {path.name}")
        images[path.stem] = path
    return images


def subfolders(folder: Path) -> list[str]:
    """List the names of the folders in a folder in natural order, without hidden ones; none where there is none."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def relative(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """Give a path relative to a folder, with ``/`` on every system; neither needs to exist."""
    return Path(os.path.relpath(path, root)).as_posix()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary, a list of dictionaries with one item a line; a file that holds the same stays untouched."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, Sequence) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def remove_leftovers(output: Path) -> None:
    """Delete the temporary files of ``atomic_path`` that a killed run left in its output folder."""
    for path in output.rglob(f"{TEMPORARY_PREFIX}*"):
        path.unlink()
