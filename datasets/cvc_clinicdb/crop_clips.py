# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import fire
from PIL import Image
from tqdm import tqdm

from endofm_monai.utils import atomic_path

__all__ = ["crop_clips"]

SECTIONS = {"train": "training", "val": "validation", "test": "test"}


def crop_clips(source: str, output: str, table: str = "clips_cls.csv") -> str:
    """Cut labeled clips, each a fixed window in consecutive frames, out of CVC-ClinicDB.

    Args:
        source: folder with ``frames/0001.png`` ... and the table.
        output: folder to write one folder of PNG frames a clip, and ``datalist.json``, to.
        table: CSV file in ``source`` with the columns ``clip_id, first_frame, last_frame`` (both included),
            ``x, y, w, h`` (pixels), ``label_polyp`` (0 or 1) and ``split`` (train, val or test).

    Returns:
        the path of the datalist.

    Raises:
        FileNotFoundError: when the table or one of its frames does not exist.
        ValueError: when a window reaches out of its frame.
    """
    datalist = defaultdict(list)
    with open(Path(source) / table, newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    for clip in tqdm(clips, "cutting clips", unit="clip"):
        left, top, width, height = (int(clip[name]) for name in "xywh")
        for number in range(int(clip["first_frame"]), int(clip["last_frame"]) + 1):
            path = Path(source) / "frames" / f"{number:04d}.png"
            with Image.open(path) as frame:
                if left < 0 or top < 0 or left + width > frame.width or top + height > frame.height:
                    raise ValueError(
                        f"{table}: the window of {clip['clip_id']} must lie in {frame.width}x{frame.height}, "
                        f"found x={left}, y={top}, w={width}, h={height}"
                    )
                with atomic_path(Path(output) / clip["clip_id"] / path.name) as temporary:
                    frame.crop((left, top, left + width, top + height)).save(temporary)
        item = {"image": clip["clip_id"], "label": int(clip["label_polyp"])}
        datalist[SECTIONS[clip["split"]]].append(item)
    path = Path(output) / "datalist.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(datalist, indent=4) + "\n", encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    fire.Fire(crop_clips)
