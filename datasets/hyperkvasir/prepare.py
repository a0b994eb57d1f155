# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace
from typing import Any

from endofm_monai.data import find_clips
from endofm_monai.data.readers.paths import VIDEO_SUFFIXES, frame_images, has_suffix
from endofm_monai.preparation.prepare import prepare_dataset, run_from_command_line
from endofm_monai.preparation.record import clean_name, name_share
from endofm_monai.preparation.sources import SourceDataset, SourceVideo, check_layout

__all__ = ["prepare"]

LICENCE = "CC BY 4.0"
VIDEOS = SourceDataset("HyperKvasir", LICENCE, published={"clips": 5704, "frames": 875940}, clip_seconds=5)
IMAGES = SourceDataset("HyperKvasir images", LICENCE, published={"frames": 10662})
UNLABELED = SourceDataset("HyperKvasir unlabeled images", LICENCE, published={"frames": 99417})
PARTS = {"videos": VIDEOS, "images": IMAGES, "unlabeled-images": UNLABELED}


def prepare(source: str, output: str, part: str = "videos", **options: Any) -> str:
    """Prepare HyperKvasir: videos cut into clips of 5 s, or images.

    Args:
        source: folder with ``labeled-videos``, ``unlabeled-videos``, ``labeled-images`` and ``unlabeled-images``, or
            some of them.
        output: folder to write to.
        part: ``"videos"``, with and without label; ``"images"``, the labeled ones, of which a tenth each is set aside
            for validation and test, chosen by their names; or ``"unlabeled-images"``, for pre-training.
        options: see :func:`endofm_monai.preparation.prepare_dataset`.

    Returns:
        the path of the datalist.

    Raises:
        ValueError: when there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, found {part}")
    root = check_layout(VIDEOS.name, source)
    if part == "videos":
        folders = [folder for folder in (root / "labeled-videos", root / "unlabeled-videos") if folder.is_dir()]
        files = [clip for folder in folders for clip in find_clips(folder) if has_suffix(clip, VIDEO_SUFFIXES)]
    else:
        top = root / ("labeled-images" if part == "images" else part)
        folders = sorted(folder for folder in top.rglob("*") if folder.is_dir())
        files = [image for folder in folders for image in frame_images(folder)]

    # A labeled file lies in tract/kind of finding/finding.
    finding = {
        file: file.parent.name.lower() for file in files if not file.relative_to(root).parts[0].startswith("unlabeled")
    }
    labels = {name: label for label, name in enumerate(sorted(set(finding.values())))}
    dataset = replace(PARTS[part], labels={label: name for name, label in labels.items()})
    videos = []
    for file in files:
        share = name_share(file.name)
        videos.append(
            SourceVideo(
                name=clean_name(file.relative_to(root).with_suffix("").as_posix()),
                image=file if part == "videos" else [file],
                labels={"label": labels[finding[file]]} if file in finding else {},
                section="training" if part != "images" or share >= 0.2 else "validation" if share >= 0.1 else "test",
            )
        )
    return prepare_dataset(dataset, videos, root, output, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
