# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

__all__ = ["linspace_indices"]


def linspace_indices(first: float, last: float, count: int, frames: int) -> torch.Tensor:
    """Give ``count`` evenly spaced frame indices from ``first`` to ``last``, inside a clip of ``frames`` frames.

    The indices are ``trunc(clamp(linspace(first, last, count), 0, frames - 1))`` in float32, as in the published
    temporal sampling, so the same frames are chosen. A span that is shorter than ``count`` repeats frames.

    Args:
        first: the index where the span starts; may lie outside the clip.
        last: the index where the span ends (included); may lie outside the clip.
        count: number of indices, at least 1.
        frames: number of frames in the clip, at least 1.

    Returns:
        int64 tensor ``(count,)`` of indices in ``[0, frames - 1]``.

    Example::

        linspace_indices(0, 149, 4, frames=150)  # tensor([  0,  49,  99, 149])
    """
    return torch.linspace(first, last, count, dtype=torch.float32).clamp(0, frames - 1).to(torch.int64)
