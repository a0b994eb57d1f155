# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from itertools import accumulate
from typing import Any

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, images_by_stem

LICENCE = "research and education only, no commercial use"
DATASET = SourceDataset("CVC-ClinicDB", LICENCE, {1: "polyp"}, {"videos": 29, "frames": 612}, mode="copy")
# Sequence n is a run of consecutive images.
LENGTHS = (
    *(25, 25, 17, 11, 25, 23, 25, 26, 22, 6, 22, 25, 25, 20, 20),
    *(25, 21, 20, 25, 20, 19, 19, 12, 25, 25, 18, 25, 20, 21),
)
VALIDATION = (6, 7, 12, 13)
TEST = (11, 15, 19, 22, 23)
PUBLISHED_TRAINING = (6, 26, 22, 2, 17, 9, 21, 10, 7, 13, 18, 29, 12, 4, 23, 11, 5, 24, 3, 28)
PUBLISHED_TEST = (3, 16, 21, 1, 9, 13, 17, 4, 10)
PUBLISHED = {
    "note": "The published evaluation: 7 of the 9 test sequences are also in training. Do not select models on it.",
    "training": [f"sequence_{number:02d}" for number in PUBLISHED_TRAINING],
    "test": [f"sequence_{number:02d}" for number in PUBLISHED_TEST],
}


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare CVC-ClinicDB: sequences of frames with masks and boxes, split by sequence.

    Also writes ``datalist_published.json``, the lists of the published evaluation, which share 7 sequences.

    Args:
        source: folder with ``Original`` and ``Ground Truth``.
        output: folder to write to.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    images, masks = (images_by_stem(root / folder) for folder in ("Original", "Ground Truth"))
    videos = []
    for number, (length, end) in enumerate(zip(LENGTHS, accumulate(LENGTHS), strict=True), 1):
        names = [str(index) for index in range(end - length + 1, end + 1)]
        frames = [images.get(name, root / "Original" / f"{name}.tif") for name in names]
        truth = [masks.get(name, root / "Ground Truth" / f"{name}.tif") for name in names]
        section = "validation" if number in VALIDATION else "test" if number in TEST else "training"
        videos.append(SourceVideo(f"sequence_{number:02d}", frames, section, masks=truth, mask_label=1))
    return prepare_dataset(DATASET, videos, root, output, datalists={"datalist_published.json": PUBLISHED}, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
