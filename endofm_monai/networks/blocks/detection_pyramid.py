# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import List  # noqa: UP035 - TorchScript reads the annotations of this module

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

__all__ = ["DetectionPyramid"]


class DetectionPyramid(nn.Module):
    """Feature pyramid of a plain transformer: its one token map becomes five levels.

    With patches of 16 pixels the levels P3 to P7 have strides of 8, 16, 32, 64 and 128 pixels: the map itself, twice
    its size by a transposed convolution, half its size by max pooling; then a feature pyramid network (Lin et al.,
    CVPR 2017), and two strided convolutions on top.

    Args:
        embed_dim: width D of a token.
        channels: channels of each level; 256 as published.
    """

    def __init__(self, embed_dim: int, channels: int = 256) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)
        self.downsample = nn.MaxPool2d(2)
        self.fpn = FeaturePyramidNetwork([embed_dim] * 3, channels, LastLevelP6P7(channels, channels))

    def body(self, token_map: torch.Tensor) -> List[torch.Tensor]:  # noqa: UP006
        """The token map ``(F, D, h, w)`` of F frames at double, single and half resolution."""
        return [self.upsample(token_map), token_map, self.downsample(token_map)]

    def forward(self, token_map: torch.Tensor) -> List[torch.Tensor]:  # noqa: UP006
        """P3 to P7, each ``(F, channels, h_l, w_l)``, of the token map ``(F, D, h, w)`` of F frames."""
        fine, middle, coarse = self.body(token_map)
        return list(self.fpn({"0": fine, "1": middle, "2": coarse}).values())
