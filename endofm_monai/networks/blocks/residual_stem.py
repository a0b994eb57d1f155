# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ResidualStem", "StandardizedConv2d"]


class StandardizedConv2d(nn.Conv2d):
    """Convolution without bias whose kernels are brought to mean 0 and variance 1 before use."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, H, W)``."""
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Bottleneck(nn.Module):
    """Residual unit of three standardized convolutions, each with group normalization.

    Args:
        in_channels: channels of the input.
        channels: channels of the output; a quarter of them inside.
        stride: stride of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = StandardizedConv2d(in_channels, inner, 1)
        self.gn1 = nn.GroupNorm(32, inner, eps=1e-6)
        self.conv2 = StandardizedConv2d(inner, inner, 3, stride, padding=1)
        self.gn2 = nn.GroupNorm(32, inner, eps=1e-6)
        self.conv3 = StandardizedConv2d(inner, channels, 1)
        self.gn3 = nn.GroupNorm(32, channels, eps=1e-6)
        projects = stride != 1 or in_channels != channels
        self.downsample = StandardizedConv2d(in_channels, channels, 1, stride) if projects else nn.Identity()
        self.gn_proj = nn.GroupNorm(channels, channels) if projects else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``(B, C, H, W)``."""
        shortcut = self.gn_proj(self.downsample(x))
        x = F.relu(self.gn1(self.conv1(x)))
        x = F.relu(self.gn2(self.conv2(x)))
        return F.relu(shortcut + self.gn3(self.conv3(x)))


class ResidualStem(nn.Module):
    """The convolutional part of TransUNet's hybrid encoder: a ResNetV2-50 of three stages, down to 1/16.

    Published as "R50" (Chen et al., "TransUNet", arXiv:2102.04306) and, with these parameter names, in Endo-FM's
    segmentation network. The first pooling has no padding, so that the second stage's maps lack a row and a column;
    as a skip they are padded with zeros.

    Args:
        in_channels: channels of a frame.
        width: channels after the first convolution; 64 as published.
        units: residual units of each stage.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, units: tuple[int, int, int] = (3, 4, 9)) -> None:
        super().__init__()
        self.root = nn.Sequential(
            OrderedDict(
                conv=StandardizedConv2d(in_channels, width, 7, stride=2, padding=3),
                gn=nn.GroupNorm(32, width, eps=1e-6),
                relu=nn.ReLU(inplace=True),
            )
        )
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        before = width
        for stage, count in enumerate(units, start=1):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for unit in range(1, count + 1):
                stride = 2 if stage > 1 and unit == 1 else 1
                blocks[f"unit{unit}"] = Bottleneck(before, 2 * width * 2**stage, stride)
                before = 2 * width * 2**stage
            stages[f"block{stage}"] = nn.Sequential(blocks)
        self.body = nn.Sequential(stages)
        self.skip_channels = (8 * width, 4 * width, width)
        self.out_channels = before

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features of frames ``(B, C, H, W)``, H and W in multiples of 16.

        Returns:
            ``(B, 1024, H/16, W/16)``, and the skips ``(B, 512, H/8, W/8)``, ``(B, 256, H/4, W/4)``,
            ``(B, 64, H/2, W/2)`` (channels at the published width).
        """
        half = self.root(frames)
        x = F.max_pool2d(half, 3, stride=2)
        maps = []
        for stage in self.body:
            x = stage(x)
            maps.append(x)
        return maps[2], [maps[1], F.pad(maps[0], [0, 1, 0, 1]), half]
