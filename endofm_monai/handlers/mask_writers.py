# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from PIL import Image

from endofm_monai.data.mask_runs import encode_runs
from endofm_monai.utils import atomic_path
from endofm_monai.visualize import open_video, overlay_mask

__all__ = [
    "MASK_WRITERS",
    "MaskOutput",
    "write_coco_masks",
    "write_nifti_masks",
    "write_overlays",
    "write_png_masks",
]

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
