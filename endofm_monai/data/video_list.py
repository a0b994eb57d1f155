# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from endofm_monai.data.clip_files import IMAGE_SUFFIXES, has_suffix
from endofm_monai.data.datalist import load_datalist
from endofm_monai.data.naming import name_videos

__all__ = ["list_videos", "result_path"]

logger = logging.getLogger(__name__)


def list_videos(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    section: str = "test",
    single_images: bool = False,
    results_dir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """List the videos to look at, without those that have been done.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file, see :func:`endofm_monai.data.load_datalist`; by default all videos below ``dataset_dir``.
        section: the list to take from the JSON file.
        single_images: without a datalist, list the images below ``dataset_dir``, each as a video of one frame.
        results_dir: folder with the results of a former run; a video whose result says that it could be read is done.

    Returns:
        items with ``image`` and ``video``, see :func:`endofm_monai.data.name_videos`.

    Raises:
        FileNotFoundError: when a folder or file does not exist.
        ValueError: when there is no video.
    """
    if datalist is None and single_images:
        root = Path(os.path.realpath(dataset_dir))
        items = [{"image": str(path)} for path in sorted(root.rglob("*")) if has_suffix(path, IMAGE_SUFFIXES)]
        if not items:
            raise ValueError(f"{dataset_dir}: holds no image.")
    else:
        items = load_datalist(dataset_dir, datalist, section, label_key="")
    videos = name_videos(items, dataset_dir)
    if results_dir is None:
        return videos
    left = [item for item in videos if not _is_done(result_path(results_dir, item["video"]))]
    if len(left) < len(videos):
        logger.info(f"{len(videos) - len(left)} of {len(videos)} videos are done already, {len(left)} are left.")
    return left


def result_path(results_dir: str | os.PathLike, video: str) -> Path:
    """The JSON file with the result for a video of this name."""
    return Path(results_dir, f"{video}.json")


def _is_done(path: Path) -> bool:
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["status"] == "ok"
