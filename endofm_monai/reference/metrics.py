# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

__all__ = ["reference_clip_scores"]


def reference_clip_scores(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice and HD95 of a clip as the published evaluation computes them; for comparison with published numbers only.

    The clip is one volume: Dice of the pixels of all frames; HD95 is the 95th percentile of the distances from either
    surface to the other one in a single list, where one frame is as far as one pixel. With no true foreground a
    prediction has a Dice of 1, and no prediction has a Dice of 0, also where nothing was to be found; HD95 is then 0.

    Args:
        prediction: boolean ``(T, H, W)``, at the size of the network's output.
        truth: likewise.

    Returns:
        ``dice`` and ``hd95``.
    """
    if not prediction.any() or not truth.any():
        return {"dice": float(prediction.any()), "hd95": 0.0}
    dice = 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + np.count_nonzero(truth))
    surface, true_surface = (mask & ~binary_erosion(mask) for mask in (prediction, truth))
    distances = distance_transform_edt(~true_surface)[surface], distance_transform_edt(~surface)[true_surface]
    return {"dice": float(dice), "hd95": float(np.percentile(np.concatenate(distances), 95))}
