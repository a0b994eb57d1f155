# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from endofm_monai.data import find_clips
from endofm_monai.data.clip_files import VIDEO_SUFFIXES, has_suffix
from endofm_monai.data.preparation import (
    SourceDataset,
    SourceVideo,
    check_layout,
    clean_name,
    prepare_dataset,
    run_command,
)

__all__ = ["prepare"]

DATASET = SourceDataset(
    name="Kvasir-Capsule",
    licence="research and education; anything else needs the owners' written permission",
    published={"clips": 1000, "frames": 158892},
    clip_seconds=5,
)


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare Kvasir-Capsule: its videos, cut into clips of 5 s.

    Its labels belong to single frames of long videos, so the clips have none. The published pre-training took a part
    of the clips that is not documented; this takes all.

    Args:
        source: folder with ``labelled_videos`` and ``unlabelled_videos``, in either spelling, or one of them.
        output: folder to write to.
        options: see :func:`endofm_monai.data.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.
    """
    root = check_layout(DATASET.name, source)
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and "videos" in folder.name)
    files = [clip for folder in folders for clip in find_clips(folder) if has_suffix(clip, VIDEO_SUFFIXES)]
    videos = [SourceVideo(clean_name(file.relative_to(root).with_suffix("").as_posix()), file) for file in files]
    return prepare_dataset(DATASET, videos, root, output, **options)


if __name__ == "__main__":
    run_command(prepare)
