# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import torch
import torch.nn.functional as F
from torch import nn


def deformable_convolution(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Deformable 3x3 convolution ``(F, D, h, w)`` (Dai et al., ICCV 2017): each tap reads the map at its own place.

    The values are those of ``torchvision.ops.deform_conv2d`` with a padding of 1; written as one bilinear sampling and
    one 1x1 convolution it is several times as fast on a CPU, above all backwards.

    Args:
        x: ``(F, C, h, w)``, zero beyond its borders.
        offset: ``(F, groups * 9 * 2, h, w)``, for each tap of each group of channels its way down and to the right, in
            cells.
        weight: ``(D, C, 3, 3)``.
    """
    frames, channels, height, width = x.shape
    groups = offset.shape[1] // 18
    offset = offset.reshape(frames * groups, 3, 3, 2, height, width)
    row = torch.arange(height, device=x.device).unsqueeze(1)  # (h, 1)
    column = torch.arange(width, device=x.device)  # (w,)
    tap = torch.arange(-1, 2, device=x.device).reshape(3, 1, 1)
    y = offset[:, :, :, 0] + tap.unsqueeze(1) + row  # (F * groups, 3, 3, h, w)
    x_place = offset[:, :, :, 1] + tap + column
    grid = torch.stack([(2 * x_place + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = F.grid_sample(
        x.reshape(frames * groups, channels // groups, height, width),
        grid.reshape(frames * groups, 9 * height, width, 2),
        align_corners=False,
    )
    return F.conv2d(sampled.reshape(frames, channels * 9, height, width), weight.reshape(-1, channels * 9, 1, 1))


def box_extent(ltrb: torch.Tensor, stride: int) -> torch.Tensor:
    """Where the box of each location lies relative to it, in cells of ``stride`` pixels, kept inside the map.

    Of distances ``ltrb`` ``(..., 4, h, w)`` from each location to the left, top, right and bottom of its box in pixels
    it makes x1 and y1 (negative to the left and upwards), then x2 and y2, all from the location, ``(..., 4, h, w)``.
    """
    last_row, last_column = ltrb.shape[-2] - 1, ltrb.shape[-1] - 1
    x = torch.arange(last_column + 1, dtype=ltrb.dtype, device=ltrb.device) + (stride // 2) / stride
    y = torch.arange(last_row + 1, dtype=ltrb.dtype, device=ltrb.device).unsqueeze(1) + (stride // 2) / stride
    left, top, right, bottom = (ltrb / stride).unbind(-3)
    sides_x = torch.stack([x - left, x + right], dim=-3).clamp(0, last_column) - x.clamp(max=last_column)
    sides_y = torch.stack([y - top, y + bottom], dim=-3).clamp(0, last_row) - y.clamp(max=last_row)
    return torch.stack([sides_x, sides_y], dim=-3).flatten(-4, -3)


class SpatialTemporalTransformation(nn.Module):
    """Add what support frames show to the features of a key frame (STFT; Wu et al., MICCAI 2021, section 2).

    Support features are aligned by a deformable convolution, which is guided by how the boxes that each frame predicts
    differ from the key frame's; then each channel of the key frame takes up that channel of the supports, weighted by
    their similarity to it. Each of ``offset_groups`` groups of channels has offsets of its own.
    """

    def __init__(self, channels: int, offset_groups: int = 4) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(4, offset_groups * 2 * 9, kernel_size=1, bias=False)
        self.conv_adaption = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        nn.init.normal_(self.conv_offset.weight, std=0.01)
        nn.init.normal_(self.conv_adaption.weight, std=0.01)

    def align(self, features: torch.Tensor, shape_difference: torch.Tensor) -> torch.Tensor:
        """Deformable convolution of features ``(F, C, h, w)``, guided by ``shape_difference`` ``(F, 4, h, w)``."""
        return deformable_convolution(features, self.conv_offset(shape_difference), self.conv_adaption.weight).relu()

    def attention(self, aligned: torch.Tensor) -> torch.Tensor:
        """Weight of each channel of the supports ``(B, N-1, C)`` in aligned features ``(B, N, C, h, w)``, key first."""
        maps = aligned.flatten(3)  # (B, N, C, h*w)
        similarity = (maps[:, :1] * maps[:, 1:]).sum(dim=3) * maps.shape[3] ** -0.5
        return similarity.softmax(dim=1)

    def forward(self, features: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
        """Transform the features of a key frame by those of its supports: ``(B, C, h, w)``.

        Args:
            features: ``(B, N, C, h, w)``, the key frame first; N = 1 is a key frame without support.
            extent: :func:`box_extent` of the boxes that each frame predicts, ``(B, N, 4, h, w)``.
        """
        shape_difference = torch.cat([extent[:, :1], extent[:, :1] - extent[:, 1:]], dim=1)
        aligned = self.align(features.flatten(0, 1), shape_difference.flatten(0, 1)).reshape(features.shape)
        weights = self.attention(aligned)[..., None, None]
        return aligned[:, 0] + (weights * aligned[:, 1:]).sum(dim=1)
