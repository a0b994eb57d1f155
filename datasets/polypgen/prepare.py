# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

from endofm_monai.data import frame_images
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import boxes_of_class, check_layout, images_by_stem, split_stills, subfolders

LICENCE = "CC BY 4.0; the owners ask to be contacted for commercial use"
FRAMES = 1537 + 2225  # 4,275 more with the negative sequences
DATASET = SourceDataset("PolypGen", LICENCE, {1: "polyp"}, {"frames": FRAMES}, mode="copy")


def prepare(
    source: str, output: str, test_center: int = 6, negatives: bool = False, splits: str | None = None, **options: Any
) -> str:
    """Prepare PolypGen: stills of six centers and sequences, with masks.

    Args:
        source: folder with ``data_C1`` ... ``data_C6`` and ``sequenceData``.
        output: folder to write to.
        test_center: center whose stills are the test; the sequences are the validation, the other stills training.
        negatives: also take the sequences without a polyp, for training. They have no masks, only empty lists of boxes:
            a set for detection or pre-training.
        splits: CSV file with the columns ``name`` (``C1/100H0050``), ``section`` and perhaps ``group``, in the place of
            ``test_center``, such as ``splits.csv`` beside this script; stills that it does not name are left out, and
            all sequences.
        options: see docs/datasets.md.
    """
    root = check_layout(DATASET.name, source)
    stills: dict[str, tuple[Path, Path]] = {}
    for center in [f"C{number}" for number in range(1, 7)]:
        if (root / f"data_{center}" / f"images_{center}").is_dir():
            for image, mask in zip(*read_frames(root / f"data_{center}", center), strict=True):
                stills[f"{center}/{image.stem}"] = image, mask
    test = f"C{test_center}/"
    listed, problems = split_stills(stills, splits, lambda name: "test" if name.startswith(test) else "training")
    videos = []
    for name, (section, labels) in listed.items():
        image, mask = stills[name]
        about = {"center": int(name[1]), **labels}
        videos.append(SourceVideo(name, [image], section, labels=about, masks=[mask], mask_label=1))
    sequences = root / "sequenceData"
    for name in subfolders(sequences / "positive") if not splits else []:
        frames, masks = read_frames(sequences / "positive" / name, name)
        videos.append(SourceVideo(name, frames, masks=masks, mask_label=1, section="validation"))
    for name in subfolders(sequences / "negativeOnly") if negatives and not splits else []:
        frames = frame_images(sequences / "negativeOnly" / name)
        videos.append(SourceVideo(name, frames, frame_labels=boxes_of_class([[] for _ in frames], 1)))
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def read_frames(folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    """List the images in ``images_<name>``, and their masks, ``masks_<name>/<image>_mask.jpg`` in any case."""
    frames, place = frame_images(folder / f"images_{name}"), folder / f"masks_{name}"
    masks = {stem.lower(): path for stem, path in images_by_stem(place).items()}
    stems = [f"{frame.stem.removesuffix('_')}_mask" for frame in frames]  # one image's name ends in _
    return frames, [masks.get(stem.lower(), place / f"{stem}.jpg") for stem in stems]


if __name__ == "__main__":
    run_from_command_line(prepare)
