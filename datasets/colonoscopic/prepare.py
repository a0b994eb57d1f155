# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from endofm_monai.data import find_clips, frame_images
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout

LABELS = {0: "adenoma", 1: "hyperplastic", 2: "serrated"}
CLASSES = {"adenoma": 0, "hyperplas": 1, "serrated": 2}  # the class is in a video's path, spelled in several ways
DATASET = SourceDataset("Colonoscopic", "see the owners' page", LABELS, {"clips": 210, "frames": 36534}, clip_seconds=5)


def prepare(source: str, output: str, **options: Any) -> str:
    """Prepare Colonoscopic: videos of lesions in white light and narrow-band imaging, cut into clips of 5 s.

    Args:
        source: folder with the videos, in folders whose names tell the class of the lesion.
        output: folder to write to.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    videos = []
    for path in find_clips(root):
        name = (path if path.is_dir() else path.with_suffix("")).relative_to(root).as_posix()
        labels = {label for word, label in CLASSES.items() if word in name.lower()}
        image = frame_images(path) if path.is_dir() else path
        videos.append(SourceVideo(name, image, labels={"label": labels.pop()} if len(labels) == 1 else {}))
    return prepare_dataset(DATASET, videos, root, output, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
