# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from endofm_monai.data.readers.base import frame_images, natural_key
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, clean_name, images_by_stem, share_of, subfolders

DATASET = SourceDataset(
    name="SUN-SEG",
    licence="on request from the owners, not to be passed on",
    labels={0: "no polyp", 1: "polyp"},
    published={"clips": 1018, "frames": 159400},
)
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
        options: see :func:`endofm_monai.preparation.prepare_dataset`.
    """
    root = check_layout(DATASET.name, source)
    videos = []
    for folder in (root / part / view for part in PARTS for view in VIEWS):
        for case in subfolders(folder / "Frame"):
            is_validation = share_of(case.split("_")[0]) < validation_share
            is_training = folder.relative_to(root).parts[0] == "TrainDataset"
            section = "test" if not is_training else "validation" if is_validation else "training"
            videos.append(read_case(folder, case, section, folder.relative_to(root).as_posix()))
    if negatives:
        cases = [path for form in ("case*", "*/case*") for path in (root / "SUN-Negative").glob(form) if path.is_dir()]
        for path in sorted(cases, key=lambda path: natural_key(path.name)):
            videos.append(SourceVideo(clean_name(path.relative_to(root)), frame_images(path), labels={"label": 0}))
        options = {"clip_seconds": 5, **options}
    return prepare_dataset(DATASET, videos, root, output, **options)


def read_case(folder: Path, case: str, section: str, name: str) -> SourceVideo:
    """Read ``Frame/<case>/<image>.jpg`` with ``GT/<case>/<image>.png``, in the natural order of the names."""
    masks = images_by_stem(folder / "GT" / case) if (folder / "GT" / case).is_dir() else {}
    frames = frame_images(folder / "Frame" / case)
    truth = [masks.get(frame.stem, folder / "GT" / case / f"{frame.stem}.png") for frame in frames]
    return SourceVideo(clean_name(f"{name}/{case}"), frames, section, labels={"label": 1}, masks=truth, mask_label=1)


if __name__ == "__main__":
    run_from_command_line(prepare)
