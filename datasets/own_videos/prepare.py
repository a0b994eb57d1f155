# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from itertools import count
from pathlib import Path
from typing import Any

from endofm_monai.data import find_clips, frame_images
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset, run_from_command_line
from endofm_monai.utils import printable, read_csv, write_csv

TABLE = "private/sources.csv"  # which clip is of which video
DATASET = SourceDataset(name="own videos", licence="yours", mode="encode", clip_seconds=5)


def prepare(source: str, output: str, border: str | None = None, **options: Any) -> str:
    """Prepare a folder of videos of any kind for pre-training: cut, resized, cropped to the endoscope's picture.

    Clips are numbered and carry no metadata of their sources. Which is which stands in ``private/sources.csv``, which
    keeps the numbers when videos are added: do not pass it on.

    Args:
        source: folder with video files, folders of frame images, multi-frame DICOM files, at any depth; outputs of
            this command in it are left out.
        output: folder to write to.
        border: what to do with what is black around the picture: ``"crop"``, by default where clips are encoded,
            ``"mask"`` (also what remains in the corners) or ``"keep"``.
        options: see docs/datasets.md. ``blank`` paints zones black, where burnt-in text is. ``mode=index`` leaves the
            videos as they are, with all that they show and tell.
    """
    root = Path(source)
    # what an earlier run with another output made of these videos is none of them
    made = {Path(output).resolve(), *(table.parents[1].resolve() for table in root.glob(f"*/**/{TABLE}"))}
    clips = [clip for clip in find_clips(root) if made.isdisjoint([clip.resolve(), *clip.resolve().parents])]
    if not clips:
        raise ValueError(f"{root}: holds no video or DICOM file, and no folder of frame images")
    table = Path(output, TABLE)
    try:
        numbers = {row["source"]: int(row["number"]) for row in read_csv(table)} if table.exists() else {}
    except (KeyError, ValueError) as error:  # as after a spreadsheet has saved it
        raise ValueError(f"{table}: expected number,source with whole numbers, as it was written ({error})") from error
    videos, free = [], count(max(numbers.values(), default=0) + 1)
    for clip in clips:
        name = printable(clip.relative_to(root).as_posix())
        if name not in numbers:
            numbers[name] = next(free)
        videos.append(SourceVideo(f"video_{numbers[name]:05d}", frame_images(clip) if clip.is_dir() else clip))
    write_csv(table, ["number", "source"], [(number, name) for name, number in numbers.items()])
    border = border or ("crop" if options.get("mode", DATASET.mode) == "encode" else "keep")
    return prepare_dataset(DATASET, videos, root, output, private=True, border=border, **options)


if __name__ == "__main__":
    run_from_command_line(prepare)
