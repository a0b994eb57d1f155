# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from endofm_monai.data import as_shown, frame_images, open_picture
from endofm_monai.formats.annotations import unique
from endofm_monai.preparation import run_from_command_line
from endofm_monai.utils import atomic_path, read_csv, write_json

NUMBERS = ("x", "y", "w", "h", "first_frame", "last_frame", "label_polyp")
SECTIONS = {"train": "training", "val": "validation", "test": "test"}


def crop_clips(source: str, output: str, table: str = "clips_cls.csv") -> str:
    """Cut labeled clips, each a fixed window in consecutive frames, out of CVC-ClinicDB.

    Args:
        source: folder with ``frames/0001.png`` ... and the table.
        output: folder to write one folder of PNG frames a clip, and ``datalist.json``, to.
        table: CSV file in ``source`` with the columns ``clip_id, first_frame, last_frame`` (both included),
            ``x, y, w, h`` (pixels), ``label_polyp`` (0 or 1), ``split`` (train, val or test) and perhaps
            ``sequence_id``, the ``group`` that intervals of an evaluation draw as a whole.
    """
    datalist = defaultdict(list)
    clips = unique(((clip.get("clip_id"), clip) for clip in read_csv(Path(source) / table)), f"{table}: two clips")
    for clip in tqdm(clips.values(), "cutting clips", unit="clip"):
        try:
            name, split = clip["clip_id"], clip["split"]
            x, y, width, height, first, last, label = (int(clip[number]) for number in NUMBERS)
        except (KeyError, ValueError) as error:
            expected = f"clip_id, split, and whole numbers as {', '.join(NUMBERS)}"
            raise ValueError(f"{table}: expected {expected}, found {clip}") from error
        if width < 1 or height < 1 or first > last or label not in (0, 1):
            raise ValueError(f"{table}: {name}: expected a window, frames in order and 0 or 1, found {clip}")
        if split not in SECTIONS:
            raise ValueError(f"{table}: {name}: expected a split of {', '.join(SECTIONS)}, found {split!r}")
        folder, files = Path(output) / name, [f"{number:04d}.png" for number in range(first, last + 1)]
        for file in files:
            with open_picture(Path(source) / "frames" / file) as opened:
                frame = as_shown(opened)
                if x < 0 or y < 0 or x + width > frame.width or y + height > frame.height:
                    found = f"found x={x}, y={y}, w={width}, h={height}"
                    raise ValueError(f"{table}: {name}: expected a window in {frame.size}, {found}")
                with atomic_path(folder / file) as temporary:
                    frame.crop((x, y, x + width, y + height)).save(temporary)
        if others := [path for path in frame_images(folder) if path.name not in files]:
            raise ValueError(f"{others[0]}: is there of another table or clip of this name; choose another output")
        group = {"group": clip["sequence_id"]} if clip.get("sequence_id") else {}  # clips of a sequence are alike
        datalist[SECTIONS[split]].append({"image": name, "label": label, **group})
    write_json(Path(output) / "datalist.json", datalist, indent=4)
    return str(Path(output) / "datalist.json")


if __name__ == "__main__":
    run_from_command_line(crop_clips)
