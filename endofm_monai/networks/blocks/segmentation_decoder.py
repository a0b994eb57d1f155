# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers import Norm
from torch import nn


class GroupNorm(nn.GroupNorm):
    """Group normalization whose backward pass in bfloat16 is not slow on a CPU with channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize ``(B, C, H, W)``."""
        slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
        y = F.group_norm(x.contiguous() if slow else x, self.num_groups, self.weight, self.bias, self.eps)
        return y.contiguous(memory_format=torch.channels_last) if slow else y


Norm.add_factory_callable("group8", lambda dims: partial(GroupNorm, 8), "Normalization of eight groups of channels.")


class DetailStem(nn.Module):
    """A small convolutional network beside the transformer, which keeps the edges that patches of 16 pixels lose."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 32, 48, 64)  # of a frame, and at 1/2, 1/4 and 1/8 of its size
        self.stages = nn.ModuleList(
            nn.Sequential(
                Convolution(2, entering, leaving, strides=2, norm="group8", act="gelu"),
                Convolution(2, leaving, leaving, norm="group8", act="gelu"),
            )
            for entering, leaving in pairwise(channels)
        )
        self.skip_channels = channels[:0:-1]

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Maps of frames ``(B, 3, H, W)`` at 1/8, 1/4 and 1/2 of their size."""
        skips = []
        for stage in self.stages:
            frames = stage(frames)
            skips.append(frames)
        return skips[::-1]


class StandardizedConv2d(nn.Conv2d):
    """Convolution without bias whose kernels are brought to mean 0 and variance 1 before use."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, H, W)``."""
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        return F.conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-5), None, self.stride, self.padding)


class Bottleneck(nn.Module):
    """Residual unit of three standardized convolutions with group normalization; a quarter of the channels inside."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = StandardizedConv2d(in_channels, inner, 1, bias=False)
        self.gn1 = GroupNorm(32, inner, eps=1e-6)
        self.conv2 = StandardizedConv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.gn2 = GroupNorm(32, inner, eps=1e-6)
        self.conv3 = StandardizedConv2d(inner, channels, 1, bias=False)
        self.gn3 = GroupNorm(32, channels, eps=1e-6)
        self.downsample: nn.Module = nn.Identity()
        self.gn_proj: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = StandardizedConv2d(in_channels, channels, 1, stride, bias=False)
            self.gn_proj = GroupNorm(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform ``(B, C, H, W)``."""
        shortcut = self.gn_proj(self.downsample(x))
        x = F.relu(self.gn1(self.conv1(x)))
        x = F.relu(self.gn2(self.conv2(x)))
        return F.relu(shortcut + self.gn3(self.conv3(x)))


class ResidualStem(nn.Module):
    """The convolutional part of TransUNet's hybrid encoder: a ResNetV2-50 of three stages, down to 1/16.

    Parameters are named as in Endo-FM's published network (after Chen et al., "TransUNet", arXiv:2102.04306). The first
    pooling has no padding, so that the second stage's maps lack a row and a column; the skip is padded with zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        convolution = StandardizedConv2d(3, 64, 7, stride=2, padding=3, bias=False)
        layers = {"conv": convolution, "gn": GroupNorm(32, 64, eps=1e-6), "relu": nn.ReLU(inplace=True)}
        self.root = nn.Sequential(OrderedDict(layers))
        self.body = nn.Sequential()
        for stage, (before, after, count) in enumerate([(64, 256, 3), (256, 512, 4), (512, 1024, 9)], start=1):
            block = nn.Sequential()
            for unit in range(1, count + 1):
                stride = 2 if stage > 1 and unit == 1 else 1
                block.add_module(f"unit{unit}", Bottleneck(before if unit == 1 else after, after, stride))
            self.body.add_module(f"block{stage}", block)

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features ``(B, 1024, H/16, W/16)`` of frames ``(B, 3, H, W)``, H and W in multiples of 16, and the skips.

        The skips are ``(B, 512, H/8, W/8)``, ``(B, 256, H/4, W/4)`` and ``(B, 64, H/2, W/2)``.
        """
        half = self.root(frames)
        x = F.max_pool2d(half, 3, stride=2)
        maps = []
        for stage in self.body:
            x = stage(x)
            maps.append(x)
        return maps[2], [maps[1], F.pad(maps[0], [0, 1, 0, 1]), half]


class UpsamplingBlock(nn.Module):
    """Doubles the size, adds a skip's channels, and convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int, norm: Any, align_corners: bool) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
        self.conv1 = _convolution(in_channels + skip_channels, channels, norm)
        self.conv2 = _convolution(channels, channels, norm)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Join ``(B, C, H, W)`` with a skip ``(B, C', 2H, 2W)``, of which C' may be 0."""
        x = self.up(x)
        return self.conv2(self.conv1(torch.cat([x, skip], dim=1) if skip.shape[1] else x))


def _convolution(in_channels: int, channels: int, norm: Any) -> Convolution:
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
        self.conv_more = _convolution(in_channels, channels[0], norm)
        self.blocks = nn.ModuleList(
            UpsamplingBlock(*widths, norm, align_corners)
            for widths in zip(channels[:-1], (*skip_channels, 0), channels[1:], strict=True)
        )

    def forward(self, grid: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """Decode the ``grid`` ``(B, C, H/16, W/16)`` with three skips, the coarsest first, to ``(B, C', H, W)``."""
        x = self.conv_more(grid)
        no_skip = grid.new_zeros((grid.shape[0], 0, grid.shape[2] * 16, grid.shape[3] * 16))
        for index, block in enumerate(self.blocks):
            x = block(x, skips[index] if index < len(skips) else no_skip)
        return x
