# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures without a polyp, cut out of stills with one: sets of stills hardly hold any other."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from endofm_monai.data.masks import read_mask
from endofm_monai.preparation import run_from_command_line, write_lists
from endofm_monai.utils import read_json, write_json

SIDES = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the picture's short side, largest first
DARK = 25  # brighter pixels belong to the endoscope's picture


def cut(folder: str, output: str, margin: float = 0.03, seed: int = 0) -> str:
    """Cut the largest square without a polyp out of each still that holds one, in all sections of a prepared set.

    Args:
        folder: output of a ``prepare.py``, of stills with masks.
        output: folder to write to, a prepared set as well: pictures, empty masks, and empty lists of boxes.
        margin: distance to keep from a polyp, as a share of the picture's long side.
        seed: chooses among squares of the same size.

    Returns:
        the path of the datalist.
    """
    manifest, lists = read_json(Path(folder, "manifest.json"), dict), read_json(Path(folder, "datalist.json"), dict)
    source, target = Path(folder, manifest["dataset_dir"]), Path(output)
    found: dict[str, list[dict[str, Any]]] = {}
    for section in ("training", "validation", "test"):
        for item in lists.get(section, []):
            (image,), (mask,) = item["image"], item["mask"]
            pixels = np.asarray(Image.open(source / image).convert("RGB"))
            random = np.random.default_rng([seed, *item["video"].encode()])
            window = _window(pixels, read_mask(source / mask), margin, random)
            if window is None:
                continue
            name = f"{item['video']}.png"
            for kind, content in (("frames", pixels[window]), ("masks", np.zeros(pixels[window].shape[:2], np.uint8))):
                (target / kind / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(target / kind / name)
            files = {"image": [f"frames/{name}"], "mask": [f"masks/{name}"]}
            found.setdefault(section, []).append({**item, **files, "box": [[]], "box_label": [[]]})
    title = f"{manifest['name']}, polyp-free windows"
    write_json(target / "manifest.json", {"name": title, "licence": manifest["licence"], "dataset_dir": "."})
    write_lists(target / "datalist.json", {"name": title, "licence": manifest["licence"], **found})
    print(", ".join(f"{section}: {len(items)}" for section, items in found.items()))
    return str(target / "datalist.json")


def _window(
    pixels: np.ndarray, polyp: np.ndarray, margin: float, random: np.random.Generator
) -> tuple[slice, slice] | None:
    """Rows and columns of the largest square that shows mucosa alone."""
    if not polyp.any():
        return None
    near = ndimage.distance_transform_edt(~polyp) < margin * max(polyp.shape)
    shown = pixels.max(axis=2) > DARK
    sums = [np.pad(part.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for part in (near, shown)]
    for share in SIDES:
        side = int(share * min(polyp.shape))
        near_count, shown_count = (
            s[side:, side:] - s[:-side, side:] - s[side:, :-side] + s[:-side, :-side] for s in sums
        )
        places = np.argwhere((near_count == 0) & (shown_count > 0.97 * side * side))
        if len(places):
            row, column = random.choice(places)
            return slice(row, row + side), slice(column, column + side)
    return None


if __name__ == "__main__":
    run_from_command_line(cut)
