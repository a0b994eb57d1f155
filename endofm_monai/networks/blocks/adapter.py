# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import torch
import torch.nn.functional as F
from torch import nn


class SpatialTemporalAdapter(nn.Module):
    """Bottleneck that looks along time: down, a depthwise 3x1x1 convolution, up, and a residual (ST-Adapter).

    ``x + up(conv(down(x)))``, without an activation, as in the code that Pan et al. released ("ST-Adapter:
    Parameter-Efficient Image-to-Video Transfer Learning", NeurIPS 2022). The convolution starts at zero, and so the
    adapter as the identity.

    Args:
        embed_dim: width D of a token.
        width: width d of the bottleneck; 384 for D = 768 as published, 592,512 parameters.
    """

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, width)
        self.conv = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), groups=width)
        self.fc2 = nn.Linear(width, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: torch's weights of the linear layers, everything else zero."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        for parameter in (self.conv.weight, self.conv.bias, self.fc1.bias, self.fc2.bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch tokens ``(B, N, T, D)``; the N places may come in any order, as each is convolved on its own."""
        reduced = F.pad(self.fc1(patches), (0, 0, 1, 1))
        before, same, after = self.conv.weight.flatten(1).to(reduced.dtype).unbind(1)  # (d,) each
        # on a CPU, three products are ten times as fast as the convolution
        seen = reduced[:, :, :-2] * before + reduced[:, :, 1:-1] * same + reduced[:, :, 2:] * after
        bias = self.conv.bias
        assert bias is not None  # as TorchScript has to be told
        return patches + self.fc2(seen + bias.to(seen.dtype))
