# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import nn

__all__ = ["DetailStem"]


class DetailStem(nn.Module):
    """A small convolutional network beside the transformer, which keeps the edges that patches of 16 pixels lose.

    Args:
        in_channels: channels of a frame.
        channels: channels at 1/2, 1/4 and 1/8 of the frame's size.
    """

    def __init__(self, in_channels: int = 3, channels: tuple[int, int, int] = (32, 48, 64)) -> None:
        super().__init__()
        before = (in_channels, *channels[:2])
        self.stages = nn.ModuleList(
            nn.Sequential(
                Convolution(2, entering, leaving, strides=2, norm=("group", {"num_groups": 8}), act="gelu"),
                Convolution(2, leaving, leaving, norm=("group", {"num_groups": 8}), act="gelu"),
            )
            for entering, leaving in zip(before, channels, strict=True)
        )
        self.skip_channels = channels[::-1]

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Maps of frames ``(B, C, H, W)`` at 1/8, 1/4 and 1/2 of their size."""
        skips = []
        for stage in self.stages:
            frames = stage(frames)
            skips.append(frames)
        return skips[::-1]
