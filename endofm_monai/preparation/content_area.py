# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image, isotropic_erosion, isotropic_opening

from endofm_monai.data import ClipReader

_FRAMES = 24
# The border is black or dark gray, and compression and glare brighten it a little: mucosa in the light is far above.
_THRESHOLD, _MARGIN, _BRIGHTEST_BORDER = 24, 16, 64
_FIT = 0.97  # of a shape to what was found: intersection over union


@dataclass(frozen=True)
class ContentArea:
    """The part of a frame that shows the endoscope's picture."""

    mask: np.ndarray  # bool (H, W), true in the picture
    shape: str  # "full" (the whole frame), "rectangle", "octagon", "circle", which the border may cut off, or "other"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The extent ``x1, y1, x2, y2`` in pixels, x2 and y2 exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_content_area(reader: ClipReader) -> ContentArea:
    """Find the endoscope's picture in a clip whose border stays black: what is ever bright, in one piece.

    Frames spread over the clip are looked at together, since the picture itself is dark where the lumen is. Text and
    logos in the border are left out: they are thinner than the picture, or apart from it.
    """
    info = reader.probe()
    brightness = np.zeros((info.height, info.width), np.float32)
    for index in np.linspace(0, info.frames - 1, min(_FRAMES, info.frames)).astype(int):
        frame = reader.read([int(index)])[:, 0]  # one at a time, since they may be large
        brightness = np.maximum(brightness, frame.amax(0).numpy())
    return fit_content_area(brightness)


def fit_content_area(brightness: np.ndarray) -> ContentArea:
    """Find the endoscope's picture by how bright each place ever is, 0 to 255 ``(H, W)``; if nothing is, all of it."""
    side = max(1, min(brightness.shape) // 20)
    ends = slice(None, side), slice(-side, None)
    corners = [np.median(brightness[rows, columns]) for rows in ends for columns in ends]
    border = sorted(corners)[1]  # text or a logo may stand in the others
    full = ContentArea(np.ones(brightness.shape, bool), "full")
    if border > _BRIGHTEST_BORDER:
        return full
    bright = binary_fill_holes(brightness > max(_THRESHOLD, border + _MARGIN))
    stroke = max(2, round(min(bright.shape) / 60))  # wider than the strokes of letters
    bright = isotropic_opening(np.pad(bright, stroke, mode="edge"), stroke)[stroke:-stroke, stroke:-stroke]
    regions = regionprops(label(bright))
    if not regions:
        return full
    largest = max(regions, key=lambda region: region.area)
    mask = np.zeros_like(bright)
    mask[largest.slice] = convex_hull_image(largest.image)
    return full if mask.mean() > 0.99 else _fit(mask)


def _fit(mask: np.ndarray) -> ContentArea:
    """Replace a ragged mask by the plain shape that it is, if it is one."""
    area = ContentArea(mask, "other")
    left, top, right, bottom = area.box
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    shapes = {"rectangle": inside, "octagon": inside & _octagon(mask, x, y), "circle": inside & _disk(mask, x, y)}
    fits = {shape: (each & mask).sum() / (each | mask).sum() for shape, each in shapes.items()}
    # rounded corners fit an octagon a little better than the rectangle that they belong to
    best = "rectangle" if fits["rectangle"] > max(_FIT, max(fits.values()) - 0.01) else max(fits, key=fits.__getitem__)
    return ContentArea(shapes[best], best) if fits[best] > _FIT else area


def _octagon(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The half planes that cut the four corners off, as far as the mask reaches towards them."""
    return np.all([towards <= towards[mask].max() for towards in (x + y, x - y, y - x, -x - y)], axis=0)


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
