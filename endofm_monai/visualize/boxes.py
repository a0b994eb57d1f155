# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.utils import draw_bounding_boxes

__all__ = ["draw_boxes"]

TRUTH = (80, 220, 100)  # green
COLORS = ((60, 160, 255), (255, 160, 60), (220, 90, 220), (250, 220, 60))  # of the classes, from 1 on


def draw_boxes(
    frame: np.ndarray,
    box: torch.Tensor,
    label: torch.Tensor,
    score: torch.Tensor | None = None,
    class_names: Sequence[str] = ("polyp",),
) -> np.ndarray:
    """Draw boxes with class and score on a frame.

    Args:
        frame: uint8 RGB ``(H, W, 3)``.
        box: ``(D, 4)``, xyxy in pixels.
        label: classes ``(D,)``, from 1.
        score: scores ``(D,)``; without them the boxes are drawn as true ones, in green.
        class_names: names of the classes, from 1 on.

    Returns:
        uint8 RGB ``(H, W, 3)``; the frame stays as it is.
    """
    if len(box) == 0:
        return frame.copy()
    names = [class_names[int(index) - 1] for index in label]
    texts = names if score is None else [f"{name} {value:.2f}" for name, value in zip(names, score, strict=True)]
    colors = [TRUTH if score is None else COLORS[(int(index) - 1) % len(COLORS)] for index in label]
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    width = max(1, round(min(frame.shape[:2]) / 150))
    last = torch.maximum(box[:, 2:] - 1, box[:, :2])  # the last row and column of a box are inside it
    drawn = draw_bounding_boxes(image, torch.cat([box[:, :2], last], 1).clamp(min=0), texts, colors, width=width)
    return drawn.permute(1, 2, 0).numpy()
