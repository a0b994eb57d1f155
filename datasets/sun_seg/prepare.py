# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from itertools import product
from pathlib import Path
from typing import Any

from endofm_monai.data import frame_images, natural_key
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, images_by_stem, share_of, subfolders

LICENCE = "on request from the owners, not to be passed on"
DATASET = SourceDataset("SUN-SEG", LICENCE, {0: "no polyp", 1: "polyp"}, {"clips": 1018, "frames": 159400})
# Each part holds its folders directly or, in the later form, below these two.
PARTS = ("TrainDataset", "TestEasyDataset", "TestHardDataset")
VIEWS = ("", "Seen", "Unseen")


def prepare(source: str, output: str, negatives: bool = False, validation_share: float = 0.1, **options: Any) -> str:
    """Prepare SUN-SEG: clips with a mask a frame, and on request the clips of SUN without a polyp.

    No validation part is published: cases of the training part are set aside for it.

    Args:
        source: folder with ``TrainDataset``, ``TestEasyDataset`` and ``TestHardDataset``, and ``SUN-Negative``.
        output: folder to write to.
        negatives: also take ``SUN-Negative``, cut into clips of 5 s that do not overlap. These have no masks: a set
            for pre-training or classification.
        validation_share: share of the cases of the training part that become the validation part.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    videos = []
    for part, view in product(PARTS, VIEWS):
        for case in subfolders(root / part / view / "Frame"):
            section, patient = "test", case.split("_")[0]
            if part == "TrainDataset":
                section = "validation" if share_of(patient) < validation_share else "training"
            frames, truth = frame_images(root / part / view / "Frame" / case), root / part / view / "GT" / case
            masks = images_by_stem(truth)
            paths = [masks.get(frame.stem, truth / f"{frame.stem}.png") for frame in frames]
            name = Path(part, view, case).as_posix()
            labels = {"label": 1, "group": patient}
            videos.append(SourceVideo(name, frames, section, labels=labels, masks=paths, mask_label=1))
    if negatives:
        cases = [path for form in ("case*", "*/case*") for path in (root / "SUN-Negative").glob(form) if path.is_dir()]
        for path in sorted(cases, key=lambda path: natural_key(path.name)):
            videos.append(SourceVideo(path.relative_to(root).as_posix(), frame_images(path), labels={"label": 0}))
        options = {"clip_seconds": 5, **options}
    return prepare_dataset(DATASET, videos, root, output, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
