# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks with weights made by hand that know one thing: what is red is a polyp.

They take the place of the transformers in the project's own bundles, so that one can tell where a mask, a box or a
probability should be, and they can be trained like them.
"""

from __future__ import annotations

import torch
from torch import nn

from endofm_monai.networks.blocks import FrameFeatures

STRIDE = 8
RED = (0.229, -0.224, 0.0)  # of normalized channels; the sum is red minus green, from -1 to 1, but for OFFSET
OFFSET = 0.485 - 0.456


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()


class BlobSegmenter(nn.Module):
    """Polyp where this frame or the next one is red: so that a frame without its neighbors has another mask."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Conv3d(3, 2, (3, 1, 1), padding=(1, 0, 0))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, :, 1, 0, 0] = self.head.weight[1, :, 2, 0, 0] = 40 * torch.tensor(RED)
            self.head.bias.copy_(torch.tensor([0, 40 * (OFFSET - 0.35)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class BlobDetector(nn.Module):
    """One box about all that is red in the key frame; the more red supports, the better the score."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.redness = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.redness.weight.copy_(20 * torch.tensor(RED).view(1, 3, 1, 1))
            self.redness.bias.fill_(20 * (OFFSET - 0.3))

    @property
    def head(self) -> BlobDetector:
        return self

    def encode(self, x: torch.Tensor) -> list[FrameFeatures]:
        redness = self.redness(x.transpose(1, 2).flatten(0, 1))  # (B*T, 1, H, W)
        logits = nn.functional.avg_pool2d(redness, STRIDE)
        rows, columns = (
            (torch.arange(size, device=x.device) * STRIDE + STRIDE / 2).float() for size in logits.shape[-2:]
        )
        location = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))  # (2, h, w)
        ltrb = []
        for frame in redness[:, 0]:
            y, x_ = (frame > 0).nonzero(as_tuple=True)
            box = torch.tensor([x_.min(), y.min(), x_.max() + 1, y.max() + 1]) if len(y) else torch.zeros(4)
            box = box.view(4, 1, 1).to(location)
            ltrb.append(torch.cat([location - box[:2], box[2:] - location]))
        parts = (location.expand(len(logits), -1, -1, -1), logits, logits, logits * 0 + 8, torch.stack(ltrb))
        return [FrameFeatures(*(part.unflatten(0, x.shape[:3:2]) for part in parts))]

    def refine(self, levels: list[FrameFeatures]) -> torch.Tensor:
        (level,) = levels
        key = FrameFeatures(*(part[:, 0].flatten(2) for part in level))
        agreement = level.class_logits.amax((2, 3, 4)).mean(dim=1).view(-1, 1, 1)
        stride, delta = torch.full_like(key.class_logits, STRIDE), torch.zeros_like(key.ltrb)
        refined = key.class_logits + agreement
        return torch.cat(
            [key.class_features, stride, key.class_logits, key.centerness, key.ltrb, refined, delta], dim=1
        )

    def forward(self, x: torch.Tensor, every_frame: bool = False) -> torch.Tensor:
        levels = self.encode(x)
        if not every_frame:
            return self.refine(levels)
        orders = [torch.arange(x.shape[2]).roll(-first) for first in range(x.shape[2])]
        each = [
            self.refine([FrameFeatures(*(part[:, order] for part in level)) for level in levels]) for order in orders
        ]
        return torch.stack(each, dim=1).flatten(0, 1)


class BlobClassifier(nn.Module):
    """The more red, the more likely abnormal."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.stack([torch.zeros(3), 100 * torch.tensor(RED)]))
            self.head.bias.copy_(torch.tensor([0, 100 * (OFFSET - 0.025)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean(dim=(2, 3, 4)))
