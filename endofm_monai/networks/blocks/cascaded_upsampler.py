# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import Convolution, UpSample
from torch import nn

__all__ = ["CascadedUpsampler"]


class UpsamplingBlock(nn.Module):
    """Doubles the size, adds a skip's channels, and convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int, norm: Any, align_corners: bool) -> None:
        super().__init__()
        self.up = UpSample(
            2, in_channels, in_channels, 2, mode="nontrainable", interp_mode="bilinear", align_corners=align_corners
        )
        self.conv1 = convolution(in_channels + skip_channels, channels, norm)
        self.conv2 = convolution(channels, channels, norm)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Join ``(B, C, H, W)`` with a skip ``(B, C', 2H, 2W)``, of which C' may be 0."""
        return self.conv2(self.conv1(torch.cat([self.up(x), skip], dim=1)))


def convolution(in_channels: int, channels: int, norm: Any) -> Convolution:
    """3x3 convolution, normalization, ReLU."""
    return Convolution(2, in_channels, channels, bias=False, norm=norm, act="relu", adn_ordering="NA")


class CascadedUpsampler(nn.Module):
    """TransUNet's decoder: from the transformer's grid to the frame's size in four doublings, three with a skip.

    Args:
        in_channels: channels of the grid.
        channels: channels after the first convolution and after each of the four doublings.
        skip_channels: channels of the skips at 1/8, 1/4 and 1/2 of the frame's size.
        norm: MONAI's name of the normalization; batch normalization as published.
        align_corners: upsample from corner to corner, as published. That moves what the grid says outward, by half a
            patch at the border, for which the convolutions have to make up.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int, int, int] = (512, 256, 128, 64, 16),
        skip_channels: tuple[int, int, int] = (512, 256, 64),
        norm: Any = "batch",
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = channels[-1]
        self.conv_more = convolution(in_channels, channels[0], norm)
        self.blocks = nn.ModuleList(
            UpsamplingBlock(*widths, norm, align_corners)
            for widths in zip(channels[:-1], (*skip_channels, 0), channels[1:], strict=True)
        )

    def forward(self, grid: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """Decode.

        Args:
            grid: ``(B, C, H/16, W/16)``.
            skips: ``(B, C', H/8, W/8)``, ``(B, C', H/4, W/4)`` and ``(B, C', H/2, W/2)``.

        Returns:
            ``(B, channels[-1], H, W)``.
        """
        x = self.conv_more(grid)
        no_skip = grid.new_zeros((grid.shape[0], 0, grid.shape[2] * 16, grid.shape[3] * 16))
        for index, block in enumerate(self.blocks):
            x = block(x, skips[index] if index < len(skips) else no_skip)
        return x
