# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Windows without a polyp, cut out of stills with one: sets of stills hardly hold any other pictures without."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from endofm_monai.data.masks import mask_boxes, read_mask
from endofm_monai.preparation import SECTIONS, run_from_command_line
from endofm_monai.preparation.index import frame_picture, read_prepared, write_derived

SIDES = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the picture's short side, largest first
DARK = 25  # brighter pixels belong to the endoscope's picture,
MUCOSA = 0.97  # which fills at least this share of a window
MARGIN = 0.03  # of the picture's long side, to keep from a polyp


def cut(folder: str, output: str, pairs: bool = False) -> str:
    """Cut the largest square without a polyp out of each still that holds one, in all sections of a prepared set.

    Gives the path of the new set's datalist.

    Args:
        folder: output of a ``prepare.py``, of stills with masks.
        output: folder to write to, a prepared set as well: pictures with the ``label`` 0, empty masks and no boxes.
        pairs: also cut a square of the same size, with the label 1, that shows the polyp: a set for classification, in
            which nothing but the polyp tells the classes apart. A still whose polyp lies at the border gives none.
    """
    manifest, lists, source = read_prepared(folder)
    target = Path(output)
    if target.resolve() == Path(folder).resolve():
        raise ValueError(f"output: needs another folder than {folder}")
    found: dict[str, list[dict[str, Any]]] = {}
    for section in SECTIONS:
        for item in lists.get(section, []):
            images, masks = item["image"], item.get("mask", [])
            if not isinstance(images, list) or len(images) != 1 or len(masks) != 1:
                raise ValueError(f"{folder}: {item['video']} in {section} is no still with a mask")
            (image,), (mask,) = images, masks
            pixels, polyp = np.asarray(frame_picture(source / image, 0)), read_mask(source / mask)
            random = np.random.default_rng([0, *item["video"].encode()])
            windows = _windows(pixels, polyp, random)[: 1 + pairs]
            for label, window in enumerate(windows if len(windows) > pairs else []):
                file = f"{label}/{item['video']}.png"
                for kind, content in (("frames", pixels), ("masks", polyp.astype(np.uint8) * 255)):
                    (target / kind / file).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(content[window]).save(target / kind / file)
                box = mask_boxes(polyp[window])
                made = {"image": [f"frames/{file}"], "mask": [f"masks/{file}"], "label": label, "box": [box]}
                made |= {"box_label": [[1] * len(box)], "video": f"{label}/{item['video']}"}
                made["group"] = item.get("group", item["video"])  # windows of one still are not independent
                found.setdefault(section, []).append({**item, **made})
    print(", ".join(f"{section}: {len(items)}" for section, items in found.items()))
    return write_derived(target, manifest, "windows", found)


def _windows(pixels: np.ndarray, polyp: np.ndarray, random: np.random.Generator) -> list[tuple[slice, slice]]:
    """Rows and columns of the largest square without a polyp, and of one as large, if any, that shows the polyp best.

    Both are of mucosa, without the border.
    """
    near = ndimage.distance_transform_edt(~polyp) < MARGIN * max(polyp.shape) if polyp.any() else ~polyp
    shown = pixels.max(axis=2) > DARK
    sums = [np.pad(part.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for part in (near, shown, polyp)]
    for share in SIDES:
        side = int(share * min(polyp.shape))
        near_count, shown_count, polyp_count = (
            total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side] for total in sums
        )
        is_mucosa = shown_count > MUCOSA * side * side  # also with a polyp, or the black border would tell the classes
        free = np.argwhere((near_count == 0) & is_mucosa)
        best = np.argwhere((polyp_count >= 0.9 * polyp_count.max()) & is_mucosa)
        if len(free):
            chosen = [random.choice(places) for places in (free, best) if len(places)]
            return [np.s_[y : y + side, x : x + side] for y, x in chosen]
    return []


if __name__ == "__main__":
    run_from_command_line(cut)
