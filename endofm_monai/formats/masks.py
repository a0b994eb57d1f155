# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""A mask as runs (CVAT's: of its rectangle, row by row; COCO's: of the frame, column by column) and as polygons."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.draw import polygon2mask
from skimage.measure import approximate_polygon, find_contours
from skimage.measure import label as label_regions

from endofm_monai.data import first_frame, read_mask, split_frames
from endofm_monai.utils import PathLike, atomic_path

__all__ = ["mask_polygons", "outlines_from_masks", "write_masks"]

MAX_SIDE = 1 << 14  # pixels of a frame in a file from outside: what it claims is allocated


def encode_runs(values: np.ndarray) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, 0 first, of a flat mask ``(N,)``."""
    edges = np.flatnonzero(np.diff(values > 0, prepend=False))
    return np.diff(edges, prepend=0, append=len(values)).tolist()


def decode_runs(runs: Sequence[int]) -> np.ndarray:
    """The flat bool mask ``(N,)`` of :func:`encode_runs`."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def mask_rectangle(mask: np.ndarray) -> list[int]:
    """``left, top, width, height`` of the smallest rectangle around the foreground, of which there is some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def mask_points(mask: np.ndarray) -> list[int]:
    """A mask ``(H, W)`` with some foreground as CVAT has it: its rectangle, and the runs of the rows in it."""
    left, top, width, height = mask_rectangle(mask)
    return [left, top, width, height, *encode_runs(mask[top : top + height, left : left + width].ravel())]


def check_mask_points(points: Iterable[float | str], height: int, width: int) -> list[int]:
    """Give the points of a mask in a frame as numbers, or refuse, before anything is made of them, what cannot be."""
    left, top, columns, rows, *runs = checked = [int(value) for value in points]
    if min(checked) < 0 or sum(runs) != columns * rows:
        raise ValueError(f"holds a mask whose runs do not fill its {columns}x{rows} pixels")
    if left + columns > width or top + rows > height:
        place = f"{columns}x{rows} pixels at {left}, {top}"
        raise ValueError(f"holds a mask of {place}, beyond its frame of {width}x{height}")
    return checked


def mask_from_points(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of :func:`mask_points`."""
    left, top, columns, rows, *runs = check_mask_points(points, height, width)
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = decode_runs(runs).reshape(rows, columns)
    return mask


def coco_mask(mask: np.ndarray, rectangle: Sequence[float]) -> dict[str, Any]:
    """A mask ``(H, W)`` in COCO's terms, as ``pycocotools`` reads it; ``rectangle`` is that of its foreground."""
    runs = {"size": list(mask.shape), "counts": encode_runs(mask.ravel(order="F"))}
    return {"segmentation": runs, "area": int(np.count_nonzero(mask)), "bbox": list(rectangle), "iscrowd": 0}


def mask_from_coco(segmentation: Mapping[str, Any]) -> np.ndarray:
    """The bool mask ``(H, W)`` of COCO's uncompressed runs, or a ``ValueError`` when they do not fill its size."""
    height, width = map(int, segmentation["size"])
    points = [0, 0, width, height, *segmentation["counts"]]
    runs = check_mask_points(points, min(height, MAX_SIDE), min(width, MAX_SIDE))[4:]
    return decode_runs(runs).reshape(height, width, order="F")


def scale_points(
    kind: str, points: Sequence[float], drawn: tuple[int, int], size: tuple[int, int]
) -> tuple[float, ...]:
    """Points of a box, polygon or mask that was drawn on a picture of another size (height, width)."""
    if drawn == size:
        return tuple(points)
    if kind != "mask":
        factors = size[1] / drawn[1], size[0] / drawn[0]
        return tuple(round(value * factors[place % 2], 6) for place, value in enumerate(points))
    if max(size) > MAX_SIDE:
        raise ValueError(f"holds a mask for a frame of {size[1]}x{size[0]}; expected sides of up to {MAX_SIDE}")
    rows, columns = ((np.arange(n) + 0.5) * of // n for n, of in zip(size, drawn, strict=True))
    mask = mask_from_points(points, *drawn)[np.ix_(rows.astype(int), columns.astype(int))]
    if not mask.any():
        sizes = f"{size[1]}x{size[0]} instead of {drawn[1]}x{drawn[0]}"
        raise ValueError(f"holds a mask of which no pixel is left at {sizes}")
    return tuple(mask_points(mask))


def check_proportions(drawn: tuple[int, int], size: tuple[int, int], where: str) -> None:
    """Refuse annotations that were drawn on a picture (height, width) of other proportions, up to a rounded pixel."""
    (height, width), (rows, columns) = drawn, size
    if min(abs(rows - height * columns / width), abs(columns - width * rows / height)) > 1:
        raise ValueError(
            f"{where}: was drawn on frames of {width}x{height}, but the file has {columns}x{rows}, which is no other "
            "scale of the same picture; take the file that was annotated"
        )


def draw_polygon(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of the pixels whose center is in the polygon ``x1, y1, x2, y2, ...``.

    Pixel (0, 0) reaches from 0 to 1.
    """
    corners = np.reshape(np.asarray(points, dtype=float), (-1, 2))[:, ::-1]
    return polygon2mask((height, width), corners - 0.5)


def mask_polygons(mask: np.ndarray, tolerance: float = 0.0, min_area: int = 1) -> list[list[float]]:
    """Outlines ``x1, y1, x2, y2, ...`` of the regions of a mask ``(H, W)``, of at least ``min_area`` pixels.

    Holes are filled. They may be ``tolerance`` pixels from the true ones; with 0 :func:`draw_polygon` gives the mask.
    """
    regions = label_regions(np.pad(mask > 0, 1), connectivity=1)
    outlines = []
    for number in range(1, regions.max() + 1):
        region = regions == number
        if region.sum() < min_area:
            continue
        contours = find_contours(region.astype(float), 0.5)
        outline = max(contours, key=lambda contour: np.ptp(contour, axis=0).prod())  # a hole's may have more corners
        if tolerance:
            outline = approximate_polygon(outline, tolerance)
        if len(outline) > 3:  # the last point is the first one
            outlines.append((outline[:-1, ::-1] - 0.5).ravel().tolist())
    return outlines


def write_masks(item: Mapping[str, Any], dataset_dir: PathLike, folder: str, height: int, width: int) -> dict[str, Any]:
    """Write the ``outline`` of an item as mask files, 0 and 255, which the segmentation bundle trains on.

    They lie in a ``folder`` of the dataset's, named after the frame images, or by the frame's number. The item is given
    back with their paths as ``mask``.
    """
    if not Path(dataset_dir, folder).resolve().is_relative_to(Path(dataset_dir).resolve()):
        raise ValueError(f"{folder}: lies outside the dataset's folder {dataset_dir}; masks are not written there.")
    if isinstance(item["image"], str):
        names, places = [f"{frame:06d}" for frame in range(len(item["outline"]))], {split_frames(item["image"])[0]}
    else:
        names, places = [Path(path).stem for path in item["image"]], set(map(os.path.dirname, item["image"]))
    if Path(dataset_dir, folder).resolve() in (Path(dataset_dir, place).resolve() for place in places):
        raise ValueError(f"{folder}: holds the images of {item['video']}, which masks would replace; choose another.")
    paths = [f"{folder}/{name}.png" for name in names]
    if len(set(paths)) < len(paths):
        raise ValueError(f"{item['video']}: has two frames of one name, so that their masks would be one file.")
    for frame, (path, outlines) in enumerate(zip(paths, item["outline"], strict=True)):
        mask = np.zeros((height, width), bool)
        for outline in outlines:
            draw, kind = (mask_from_points, "mask") if "mask" in outline else (draw_polygon, "polygon")
            drawn = draw(outline[kind], height, width)
            if not drawn.any():
                at = f"frame {first_frame(item['image']) + frame}" if isinstance(item["image"], str) else names[frame]
                raise ValueError(f"{item['video']}: the {kind} in {at} has no pixel of its {width}x{height}.")
            mask |= drawn
        with atomic_path(Path(dataset_dir, path)) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
    return {**item, "mask": paths}


def outlines_from_masks(masks: Sequence[PathLike], label: int = 1) -> list[list[dict[str, Any]]]:
    """Give the separate regions of mask files, one a frame, as the ``outline`` of an item: exact, to edit as pixels."""
    frames = []
    for path in masks:
        regions = label_regions(read_mask(Path(path)), connectivity=2)
        numbers = range(1, regions.max() + 1)
        frames.append([{"label": label, "mask": mask_points(regions == number)} for number in numbers])
    return frames
