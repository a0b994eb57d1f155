# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["resample_spatial_encoding", "resample_temporal_encoding"]


def resample_spatial_encoding(
    table: torch.Tensor, table_size: tuple[int, int], grid_size: tuple[int, int]
) -> torch.Tensor:
    """Spatial part of the dynamic positional encoding: each patch takes the nearest entry of the learned table.

    Args:
        table: ``(1, 1 + N, D)``, the class token's entry first, then ``table_size`` row by row.
        table_size: patches (rows, columns) that the table was learned for.
        grid_size: patches (rows, columns) of the frames.

    Returns:
        ``(1, 1 + rows * columns, D)``, the class token's entry unchanged.
    """
    if grid_size == table_size:
        return table
    grid = table[:, 1:].transpose(1, 2).reshape(1, -1, table_size[0], table_size[1])
    grid = F.interpolate(grid, size=[grid_size[0], grid_size[1]], mode="nearest")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def resample_temporal_encoding(table: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Temporal part of the dynamic positional encoding: each frame takes the nearest entry of ``table`` ``(1, T, D)``.

    Returns:
        ``(1, num_frames, D)``.
    """
    if num_frames == table.shape[1]:
        return table
    return F.interpolate(table.transpose(1, 2), size=[num_frames], mode="nearest").transpose(1, 2)
