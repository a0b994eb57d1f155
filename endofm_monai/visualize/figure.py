# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from endofm_monai.transforms.normalization import PRETRAINING_MEAN, PRETRAINING_STD
from endofm_monai.utils import atomic_path

__all__ = ["MAX_FRAMES", "new_figure", "pick_frames", "rgb_frames", "save_figure"]

MAX_FRAMES = 8  # of a clip that a picture shows


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` x ``height`` inches that is drawn off screen and unknown to ``matplotlib.pyplot``."""
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return Figure(figsize=(width, height), dpi=200, layout=tight)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write the figure to ``path``, in the format of its suffix, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def pick_frames(num_frames: int) -> list[int]:
    """The frames of a clip that a picture shows: all, or ``MAX_FRAMES`` at equal distances with the first and last."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()


def rgb_frames(clip: torch.Tensor) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` in [0, 1] of a clip ``(3, T, H, W)``: uint8 RGB, or normalized as for pre-training."""
    frames = clip.detach().cpu().permute(1, 2, 3, 0)
    if frames.dtype == torch.uint8:
        return frames.numpy() / 255
    mean, std = torch.tensor(PRETRAINING_MEAN), torch.tensor(PRETRAINING_STD)
    return (frames.float() * std + mean).clamp(0, 1).numpy()
