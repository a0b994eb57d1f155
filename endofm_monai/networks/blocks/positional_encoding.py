# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

__all__ = ["resample_grid", "resample_spatial_encoding", "resample_temporal_encoding"]


def resample_grid(table: torch.Tensor, table_size: tuple[int, int], grid_size: tuple[int, int]) -> torch.Tensor:
    """Nearest entry of a learned table ``(1, N, D)``, row by row, for each patch: ``(1, rows * columns, D)``."""
    row = _nearest(table_size[0], grid_size[0], table.device)
    column = _nearest(table_size[1], grid_size[1], table.device)
    return table.index_select(1, (row.unsqueeze(1) * table_size[1] + column).flatten())


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
    return torch.cat([table[:, :1], resample_grid(table[:, 1:], table_size, grid_size)], dim=1)


def resample_temporal_encoding(table: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Temporal part of the dynamic positional encoding: each frame takes the nearest entry of ``table`` ``(1, T, D)``.

    Returns:
        ``(1, num_frames, D)``.
    """
    return table.index_select(1, _nearest(table.shape[1], num_frames, table.device))


def _nearest(size: int, new_size: int, device: torch.device) -> torch.Tensor:
    """Indices that ``F.interpolate(mode="nearest")`` takes; written out, as ONNX rounds them otherwise."""
    return (torch.arange(new_size, device=device, dtype=torch.float32) * (size / new_size)).long()
