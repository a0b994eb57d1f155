# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage.measure import label, regionprops

from endofm_monai.data.readers.base import ClipReadError

__all__ = ["mask_boxes", "read_mask"]

# Lossy masks differ from 0 and 255 along the outline; a picture or a map of classes does so everywhere.
_MAX_GRAY_SHARE = 0.1


def read_mask(path: Path, clean: bool = False) -> np.ndarray:
    """Read a mask of foreground and background.

    Args:
        path: an image with the values 0 and 255 or 0 and 1; where it is not ``clean``, values between 0 and 255 that
            JPEG compression or smoothing left along the outline are split at 127.
        clean: accept no values between.

    Returns:
        bool array ``(H, W)``.

    Raises:
        ClipReadError: when it is no readable image, or no mask.
    """
    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ClipReadError(f"{path}: is not a readable mask ({error})") from error
    if mask.max() <= 1:
        return mask == 1
    gray = (mask > 8) & (mask < 247) if not clean else (mask > 0) & (mask < 255)
    if gray.any() if clean else gray.mean() > _MAX_GRAY_SHARE:
        values = np.unique(mask)
        raise ClipReadError(f"{path}: a mask has the values 0 and 255 or 0 and 1, found {len(values)} values")
    return mask > 127


def mask_boxes(mask: np.ndarray, min_area: int = 30) -> list[list[int]]:
    """Give the boxes of the separate regions of a mask.

    Args:
        mask: bool array ``(H, W)``.
        min_area: smallest region in pixels; smaller ones are specks.

    Returns:
        ``[x1, y1, x2, y2]`` for each region, x2 and y2 exclusive.
    """
    regions = [region for region in regionprops(label(mask, connectivity=2)) if region.area >= min_area]
    return [[int(x1), int(y1), int(x2), int(y2)] for y1, x1, y2, x2 in (region.bbox for region in regions)]
