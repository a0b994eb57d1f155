# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import product

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template

__all__ = ["picture_likeness"]

_SIDE = 64  # pixels
_MARGIN = 10  # pixels of the first picture that may be missing in the second one, on each side
_SCALES = (0.84, 0.92, 1.0, 1.08, 1.17)  # of the second picture, for copies that are cropped or have another border
_MAX_STRETCH = 1.2
_BLUR = 6.4  # pixels: coarser structure, as a dark lumen in the middle, is alike in unrelated pictures


def picture_likeness(first: Image.Image, second: Image.Image) -> float:
    """Look for the middle of a picture in another one, at any place and several sizes.

    Args:
        first: a gray picture.
        second: a gray picture.

    Returns:
        the correlation of their details where they fit best, at most 1.
    """
    middle = _details(first, _SIDE, _SIDE)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    best = -1.0
    for across, down in product(_SCALES, _SCALES):
        if max(across / down, down / across) <= _MAX_STRETCH:
            whole = _details(second, round(_SIDE * across), round(_SIDE * down))
            best = max(best, float(match_template(whole, middle).max()))
    return best


def _details(picture: Image.Image, width: int, height: int) -> np.ndarray:
    image = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32)
    return image - gaussian_filter(image, _BLUR)
