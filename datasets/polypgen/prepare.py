# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endofm_monai.data.readers.base import frame_images
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.preparation.sources import check_layout, clean_name, images_by_stem, split_stills, subfolders

DATASET = SourceDataset(
    name="PolypGen",
    licence="CC BY 4.0; the owners ask to be contacted for commercial use",
    labels={1: "polyp"},
    published={"frames": 1537 + 2225},  # 4,275 more with the negative sequences
    mode="copy",
)


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
        options: see :func:`endofm_monai.preparation.prepare_dataset`.
    """
    root = check_layout(DATASET.name, source)
    folders = [root / f"data_C{center}" / f"images_C{center}" for center in range(1, 7)]
    images = [image for folder in folders if folder.is_dir() for image in frame_images(folder)]
    stills = {f"{image.parent.name.removeprefix('images_')}/{image.stem}": image for image in images}  # C1/100H0050
    test = f"C{test_center}/"
    there = {
        (folder, stem.lower()): path
        for folder in root.glob("**/masks_*")
        for stem, path in images_by_stem(folder).items()
    }
    listed, problems = split_stills(stills, splits, lambda name: "test" if name.startswith(test) else "training")
    videos = []
    for name, (section, labels) in listed.items():
        image, about = stills[name], {"center": int(name[1]), **labels}
        mask = mask_of(image, f"masks_{name[:2]}", there)
        videos.append(SourceVideo(clean_name(name), [image], section, labels=about, masks=[mask], mask_label=1))
    for name in subfolders(root / "sequenceData" / "positive") if not splits else []:
        frames = frame_images(root / "sequenceData" / "positive" / name / f"images_{name}")
        masks = [mask_of(frame, f"masks_{name}", there) for frame in frames]
        videos.append(SourceVideo(clean_name(name), frames, masks=masks, mask_label=1, section="validation"))
    for name in subfolders(root / "sequenceData" / "negativeOnly") if negatives and not splits else []:
        frames = frame_images(root / "sequenceData" / "negativeOnly" / name)
        nothing: list[list[Any]] = [[] for _ in frames]
        videos.append(SourceVideo(clean_name(name), frames, frame_labels={"box": nothing, "box_label": nothing}))
    return prepare_dataset(DATASET, videos, root, output, problems=problems, **options)


def mask_of(image: Path, folder: str, masks: Mapping[tuple[Path, str], Path]) -> Path:
    """Name the mask of an image: in the folder beside it, with ``_mask`` at the end of its name, in any case."""
    place, stem = image.parents[1] / folder, f"{image.stem.removesuffix('_')}_mask"  # one image's name ends in _
    return masks.get((place, stem.lower()), place / f"{stem}.jpg")


if __name__ == "__main__":
    run_from_command_line(prepare)
