# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from PIL import Image
from skimage.draw import polygon2mask
from skimage.measure import approximate_polygon, find_contours, label
from skimage.measure import label as label_regions

from endofm_monai.data.masks import read_mask
from endofm_monai.formats.video import open_video
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import overlay_mask

__all__ = [
    "MASK_WRITERS",
    "MaskOutput",
    "decode_runs",
    "draw_polygon",
    "encode_runs",
    "mask_from_points",
    "mask_points",
    "mask_polygons",
    "outlines_from_masks",
    "write_coco_masks",
    "write_masks",
    "write_nifti_masks",
    "write_overlays",
    "write_png_masks",
]


def encode_runs(values: np.ndarray) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, 0 first, of a flat mask ``(N,)``."""
    flat = np.concatenate([[0], np.asarray(values) > 0]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges, [len(flat) - 1]])).tolist()


def decode_runs(runs: Sequence[int]) -> np.ndarray:
    """The flat bool mask ``(N,)`` of :func:`encode_runs`."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def mask_points(mask: np.ndarray) -> list[int]:
    """A mask as CVAT has it.

    Args:
        mask: ``(H, W)``, with some foreground.

    Returns:
        ``left, top, width, height`` of the smallest rectangle around it, and the runs of its rows.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [int(columns[0]), int(rows[0]), inner.shape[1], inner.shape[0], *encode_runs(inner.ravel())]


def mask_from_points(points: Sequence[int], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of :func:`mask_points`; what lies beyond the frame is cut off."""
    left, top, columns, rows = (int(value) for value in points[:4])
    inner = decode_runs([int(run) for run in points[4:]]).reshape(rows, columns)
    mask = np.zeros((max(height, top + rows), max(width, left + columns)), bool)
    mask[top : top + rows, left : left + columns] = inner
    return mask[:height, :width]


def draw_polygon(points: Sequence[float], height: int, width: int) -> np.ndarray:
    """The bool mask ``(height, width)`` of the pixels whose center is in a polygon.

    Args:
        points: ``x, y`` of each corner; pixel (0, 0) reaches from 0 to 1.
        height: rows of the frame.
        width: columns of the frame.
    """
    corners = np.reshape(np.asarray(points, dtype=float), (-1, 2))[:, ::-1]
    return polygon2mask((height, width), corners - 0.5)


def mask_polygons(mask: np.ndarray, tolerance: float = 0.0, min_area: int = 1) -> list[list[float]]:
    """Outlines of the separate regions of a mask; holes are filled.

    Args:
        mask: ``(H, W)``.
        tolerance: how far in pixels a simpler outline may be from the true one. With 0 :func:`draw_polygon` gives the
            mask again.
        min_area: smallest region in pixels.

    Returns:
        ``x1, y1, x2, y2, ...`` of each outline.
    """
    regions = label(np.pad(mask > 0, 1), connectivity=1)
    outlines = []
    for number in range(1, regions.max() + 1):
        region = regions == number
        if region.sum() < min_area:
            continue
        outline = max(find_contours(region.astype(float), 0.5), key=len)
        if tolerance:
            outline = approximate_polygon(outline, tolerance)
        if len(outline) > 3:  # the last point is the first one
            outlines.append((outline[:-1, ::-1] - 0.5).ravel().tolist())
    return outlines


def write_masks(
    item: Mapping[str, Any], dataset_dir: str | os.PathLike, folder: str, height: int, width: int
) -> dict[str, Any]:
    """Write the outlines of an item as mask files, 0 and 255, which the segmentation bundle trains on.

    Args:
        item: item with ``outline``, see :func:`endofm_monai.apps.cvat.items_from_annotations`.
        dataset_dir: the dataset's folder.
        folder: the folder in it for the files; they are named after the frame images, or by the frame's number.
        height: rows of a frame in pixels.
        width: columns of a frame in pixels.

    Returns:
        the item with ``mask``, a path for each frame.

    Raises:
        ValueError: when two frame images have one name, or ``folder`` lies outside ``dataset_dir``.
    """
    if not Path(dataset_dir, folder).resolve().is_relative_to(Path(dataset_dir).resolve()):
        raise ValueError(f"{folder}: lies outside the dataset's folder {dataset_dir}; masks are not written there.")
    frames = item["outline"]
    names = [f"{frame:06d}" for frame in range(len(frames))]
    if not isinstance(item["image"], str):
        names = [Path(path).stem for path in item["image"]]
    if len(set(names)) < len(names):
        raise ValueError(f"{item['video']}: has two frames of one name, so that their masks would be one file.")
    paths = [f"{folder}/{name}.png" for name in names]
    for path, outlines in zip(paths, frames, strict=True):
        mask = np.zeros((height, width), bool)
        for outline in outlines:
            if "mask" in outline:
                mask |= mask_from_points(outline["mask"], height, width)
            else:
                mask |= draw_polygon(outline["polygon"], height, width)
        with atomic_path(Path(dataset_dir, path)) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
    return {**item, "mask": paths}


def outlines_from_masks(masks: Sequence[str | os.PathLike], label: int = 1) -> list[list[dict[str, Any]]]:
    """Give the separate regions of mask files as the ``outline`` of an item: exact, but to be edited as pixels.

    Args:
        masks: a file for each frame.
        label: class of the regions.

    Returns:
        for each frame its regions.

    Raises:
        ClipReadError: when a file is no mask.
    """
    frames = []
    for path in masks:
        regions = label_regions(read_mask(Path(path)), connectivity=2)
        numbers = range(1, regions.max() + 1)
        frames.append([{"label": label, "mask": mask_points(regions == number)} for number in numbers])
    return frames


WriteMask = Callable[[np.ndarray, np.ndarray], object]


@dataclass(frozen=True)
class MaskOutput:
    """What the writers know of a clip before its first frame.

    Args:
        folder: where to write.
        names: a name for each frame.
        fps: frames per second.
        height: rows of a frame in pixels.
        width: columns of a frame in pixels.
    """

    folder: Path
    names: Sequence[str]
    fps: float
    height: int
    width: int


@contextmanager
def write_png_masks(clip: MaskOutput) -> Iterator[WriteMask]:
    """Write ``masks/<name>.png`` for each frame, 0 or 255."""
    names = iter(clip.names)

    def write(frame: np.ndarray, mask: np.ndarray) -> None:
        with atomic_path(clip.folder / "masks" / f"{next(names)}.png") as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)

    yield write


@contextmanager
def write_overlays(clip: MaskOutput) -> Iterator[WriteMask]:
    """Write ``overlay.mp4``: the frames with their masks laid over them."""
    with open_video(clip.folder / "overlay.mp4", clip.fps) as write_frame:
        yield lambda frame, mask: write_frame(overlay_mask(frame, mask))


@contextmanager
def write_nifti_masks(clip: MaskOutput) -> Iterator[WriteMask]:
    """Write ``masks.nii.gz``, a label volume ``(X, Y, T)`` of 0 and 1 that 3D Slicer and ITK-SNAP open.

    Pixels are square with a side of 1, and frames are 1 apart; x runs to the right and y down on the screen, as ITK
    has it. MONAI's ``NibabelWriter``, whose header this is, wants the whole volume in memory; here frames are
    compressed as they come, so that memory does not grow with the video. More than 32,767 frames are beyond NIfTI-1 and
    make a NIfTI-2 file, which nibabel reads, but ITK (5.4) and the viewers that build on it do not.
    """
    shape, affine = (clip.width, clip.height, len(clip.names)), np.diag([-1.0, -1.0, 1.0, 1.0])
    header = (Nifti1Header if max(shape) <= np.iinfo(np.int16).max else Nifti2Header)()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    with atomic_path(clip.folder / "masks.nii.gz") as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        header.write_to(file)
        yield lambda frame, mask: file.write(mask.astype(np.uint8).tobytes())


@contextmanager
def write_coco_masks(clip: MaskOutput) -> Iterator[WriteMask]:
    """Write ``masks.json``: COCO annotations with run-length encoded masks, one for each frame with a mask.

    Runs are uncompressed: lengths of runs of 0 and 1 in turn, column by column, 0 first, which ``pycocotools`` reads.
    """
    annotations: list[str] = []
    written = 0

    def write(frame: np.ndarray, mask: np.ndarray) -> None:
        nonlocal written
        written += 1
        if not mask.any():
            return
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        annotation = {
            "id": len(annotations) + 1,
            "image_id": written,
            "category_id": 1,
            "segmentation": {"size": [clip.height, clip.width], "counts": encode_runs(mask.ravel(order="F"))},
            "area": int(np.count_nonzero(mask)),
            "bbox": [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1],
            "iscrowd": 1,
        }
        annotations.append(json.dumps(annotation))  # a string takes a tenth of the memory

    yield write
    images = [
        {"id": number, "file_name": name, "width": clip.width, "height": clip.height}
        for number, name in enumerate(clip.names, start=1)
    ]
    head = json.dumps({"images": images, "categories": [{"id": 1, "name": "polyp"}]})
    with atomic_path(clip.folder / "masks.json") as temporary:
        temporary.write_text(head[:-1] + ', "annotations": [\n' + ",\n".join(annotations) + "\n]}\n")


MASK_WRITERS: dict[str, Callable[[MaskOutput], AbstractContextManager[WriteMask]]] = {
    "png": write_png_masks,
    "nifti": write_nifti_masks,
    "coco": write_coco_masks,
    "overlay": write_overlays,
}
