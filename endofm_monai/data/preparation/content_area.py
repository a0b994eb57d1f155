# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image, isotropic_erosion, isotropic_opening

from endofm_monai.data.clip_reader import ClipReader

__all__ = ["ContentArea", "find_content_area"]

_FRAMES = 24
# Compression and glare leave the border a few gray levels above black; mucosa that the lamp reaches is far above.
_THRESHOLD = 24
_SHAPES = {"circle": 0.97, "octagon": 0.97, "rectangle": 0.97}


@dataclass(frozen=True)
class ContentArea:
    """The part of a frame that shows the endoscope's picture.

    Args:
        mask: bool array ``(H, W)``, true in the picture.
        shape: ``"full"`` (the whole frame), ``"rectangle"``, ``"octagon"``, ``"circle"``, which the border may cut
            off, or ``"other"``.
    """

    mask: np.ndarray
    shape: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The extent ``x1, y1, x2, y2`` in pixels, x2 and y2 exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_content_area(reader: ClipReader) -> ContentArea:
    """Find the endoscope's picture in a clip whose border stays black: what is ever bright, in one piece.

    Frames spread over the clip are looked at together, since the picture itself is dark where the lumen is. Text and
    logos in the border are left out: they are thinner than the picture, or apart from it.

    Args:
        reader: the clip's reader.

    Returns:
        the area; the whole frame where nothing bright is found.

    Raises:
        ClipReadError: when a frame cannot be read.
    """
    info = reader.probe()
    indices = np.linspace(0, info.frames - 1, min(_FRAMES, info.frames)).astype(int)
    brightness = np.zeros((info.height, info.width), np.float32)
    for index in indices:  # one at a time, since they may be large
        frame = reader.read([int(index)])[:, 0].float()  # (3, H, W)
        brightness = np.maximum(brightness, frame.amax(0).numpy())
    bright = binary_fill_holes(brightness > _THRESHOLD)
    stroke = max(2, round(min(bright.shape) / 60))  # wider than the strokes of letters
    padded = np.pad(isotropic_opening(np.pad(bright, stroke, mode="edge"), stroke), 0)
    bright = padded[stroke:-stroke, stroke:-stroke]
    regions = regionprops(label(bright))
    if not regions:
        return ContentArea(np.ones_like(bright), "full")
    largest = max(regions, key=lambda region: region.area)
    mask = np.zeros_like(bright)
    mask[largest.slice] = convex_hull_image(largest.image)
    return _fit(mask)


def _fit(mask: np.ndarray) -> ContentArea:
    """Replace a ragged mask by the plain shape that it is, if it is one."""
    if mask.mean() > 0.99:
        return ContentArea(np.ones_like(mask), "full")
    area = ContentArea(mask, "other")
    left, top, right, bottom = area.box
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    candidates = {
        "rectangle": inside,
        "octagon": inside & _cut_corners(mask, x, y),
        "circle": inside & _disk(mask, x, y),
    }
    for shape, candidate in candidates.items():
        if (candidate & mask).sum() / (candidate | mask).sum() > _SHAPES[shape]:
            return ContentArea(candidate, shape)
    return area


def _cut_corners(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The half planes that cut the four corners off, as far as the mask reaches towards them."""
    inside = np.ones_like(mask)
    for towards in (x + y, x - y, y - x, -x - y):
        inside &= towards <= towards[mask].max()
    return inside


def _disk(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The disk through the part of the outline that the frame does not cut off (least squares)."""
    outline = mask & ~isotropic_erosion(mask, 1)
    outline[[0, -1]] = outline[:, [0, -1]] = False
    if outline.sum() < 8:
        return np.zeros_like(mask)
    points = np.stack([x[outline], y[outline]], 1)
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    (center_x, center_y, constant), *_ = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)
    return (x - center_x) ** 2 + (y - center_y) ** 2 <= constant + center_x**2 + center_y**2
