# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace
from typing import Any

from endofm_monai.data import IMAGE_SUFFIXES, list_files, natural_key
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, choose_part, split_by_name, video_files

LICENCE = "CC BY 4.0"
PARTS = {
    "videos": SourceDataset("HyperKvasir", LICENCE, published={"clips": 5704, "frames": 875940}, clip_seconds=5),
    "images": SourceDataset("HyperKvasir images", LICENCE, published={"frames": 10662}),
    "unlabeled-images": SourceDataset("HyperKvasir unlabeled images", LICENCE, published={"frames": 99417}),
}


def prepare(source: str, output: str, part: str = "videos", **options: Any) -> str:
    """Prepare HyperKvasir: videos cut into clips of 5 s, or images.

    Args:
        source: folder with ``labeled-videos``, ``unlabeled-videos``, ``labeled-images`` and ``unlabeled-images``, or
            some of them.
        output: folder to write to.
        part: ``"videos"``, with and without label; ``"images"``, the labeled ones, of which a tenth each is set aside
            for validation and test, chosen by their names; or ``"unlabeled-images"``, for pre-training.
        options: see docs/datasets.md.
    """
    dataset, root = choose_part(PARTS, part), check_layout("HyperKvasir", source)
    if part == "videos":
        files = [file for kind in ("labeled", "unlabeled") for file in video_files(root / f"{kind}-videos")]
    else:
        top = root / ("labeled-images" if part == "images" else part)
        files = sorted(list_files(top, IMAGE_SUFFIXES), key=lambda file: (file.parent, natural_key(file.name)))
    names = {file: file.relative_to(root).with_suffix("").as_posix() for file in files}
    # A labeled file lies in tract/kind of finding/finding.
    finding = {file: file.parent.name.lower() for file, name in names.items() if not name.startswith("unlabeled")}
    findings = sorted({*finding.values()})
    videos = []
    for file, name in names.items():
        section = split_by_name(file.name) if part == "images" else "training"
        label = {"label": findings.index(finding[file])} if file in finding else {}
        videos.append(SourceVideo(name, file if part == "videos" else [file], section, labels=label))
    return prepare_dataset(replace(dataset, labels=dict(enumerate(findings))), videos, root, output, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
