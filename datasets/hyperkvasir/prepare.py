# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace
from typing import Any

from endofm_monai.data import find_clips
from endofm_monai.data.clip_files import VIDEO_SUFFIXES, frame_images, has_suffix
from endofm_monai.data.preparation import (
    SourceDataset,
    SourceVideo,
    check_layout,
    clean_name,
    name_share,
    prepare_dataset,
    run_command,
)

__all__ = ["prepare"]

LICENCE = "CC BY 4.0"
VIDEOS = SourceDataset("HyperKvasir", LICENCE, published={"clips": 5704, "frames": 875940}, clip_seconds=5)
IMAGES = SourceDataset("HyperKvasir images", LICENCE, published={"frames": 10662})


def prepare(source: str, output: str, part: str = "videos", **options: Any) -> str:
    """Prepare HyperKvasir: videos cut into clips of 5 s, or the labeled images.

    Args:
        source: folder with ``labeled-videos``, ``unlabeled-videos`` and ``labeled-images``, or some of them.
        output: folder to write to.
        part: ``"videos"``, with and without label, or ``"images"``, the labeled ones, of which a tenth each is set
            aside for validation and test, chosen by their names.
        options: see :func:`endofm_monai.data.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.

    Raises:
        ValueError: when there is no such part.
    """
    if part not in ("videos", "images"):
        raise ValueError(f'part: expected "videos" or "images", found "{part}"')
    root = check_layout(VIDEOS.name, source)
    if part == "videos":
        folders = [folder for folder in (root / "labeled-videos", root / "unlabeled-videos") if folder.is_dir()]
        files = [clip for folder in folders for clip in find_clips(folder) if has_suffix(clip, VIDEO_SUFFIXES)]
    else:
        folders = sorted(folder for folder in (root / "labeled-images").rglob("*") if folder.is_dir())
        files = [image for folder in folders for image in frame_images(folder)]

    # A labeled file lies in tract/kind of finding/finding.
    finding = {
        file: file.parent.name.lower() for file in files if file.relative_to(root).parts[0] != "unlabeled-videos"
    }
    labels = {name: label for label, name in enumerate(sorted(set(finding.values())))}
    dataset = VIDEOS if part == "videos" else IMAGES
    dataset = replace(dataset, labels={label: name for name, label in labels.items()})
    videos = []
    for file in files:
        share = name_share(file.name)
        videos.append(
            SourceVideo(
                name=clean_name(file.relative_to(root).with_suffix("").as_posix()),
                image=file if part == "videos" else [file],
                labels={"label": labels[finding[file]]} if file in finding else {},
                section="training" if part == "videos" or share >= 0.2 else "validation" if share >= 0.1 else "test",
            )
        )
    return prepare_dataset(dataset, videos, root, output, **options)


if __name__ == "__main__":
    run_command(prepare)
