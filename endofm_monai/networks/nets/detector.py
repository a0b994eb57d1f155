# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any, ClassVar  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from torch import nn

from endofm_monai.networks.blocks import DetectionHead, DetectionPyramid, FrameFeatures
from endofm_monai.networks.nets.endofm import EndoFM

# channels of neck and head, and convolutions of each tower; "base" is the published one
SIZES = {"mini": (64, 2), "tiny": (64, 2), "small": (128, 2), "base": (256, 4), "large": (256, 4)}


class EndoFMDetector(nn.Module):
    """Polyp detector of Endo-FM: its video transformer, a feature pyramid and a two-stage head (paper, section 3.2).

    A clip is a key frame and the frames that support it. The ``neck`` makes the levels of the pyramid from a token map,
    the ``head`` predictions from the levels. With ``frames="per_frame"``, as the published code tests, each frame is
    encoded alone, so that a video is encoded once a frame, and frames meet in the head; ``"joint"``, as it trains, lets
    them attend to each other in the transformer as well.

    Example::

        >>> detector = EndoFMDetector.from_preset("tiny", num_classes=2)
        >>> detector(torch.rand(1, 3, 3, 224, 224)).shape  # 28**2 + 14**2 + 7**2 + 4**2 + 2**2 locations
        torch.Size([1, 16, 1049])
    """

    published_prefixes: ClassVar[dict[str, str | None]] = {
        "body.fpn1.": None,
        "body.fpn2.0.": "neck.upsample.",
        "body.": "",
        **{f"fpn.fpn_inner{level + 2}.": f"neck.fpn.inner_blocks.{level}.0." for level in range(3)},
        **{f"fpn.fpn_layer{level + 2}.": f"neck.fpn.layer_blocks.{level}.0." for level in range(3)},
        "fpn.top_blocks.": "neck.fpn.extra_blocks.",
        "rpn.head.cls_tower.": "head.classification.conv.",
        "rpn.head.cls_logits.": "head.classification.cls_logits.",
        "rpn.head.bbox_tower.": "head.regression.conv.",
        "rpn.head.bbox_pred.": "head.regression.bbox_reg.",
        "rpn.head.centerness.": "head.regression.bbox_ctrness.",
        "rpn.head.scales.": "head.scales.",
        "rpn.head.dcn_cls_subnet.": "head.class_transformation.",
        "rpn.head.dcn_bbox_subnet.": "head.box_transformation.",
        "rpn.head.dcn_cls_score.": "head.refined_class.",
        "rpn.head.dcn_bbox_pred.": "head.refined_box.",
    }

    def __init__(self, backbone: EndoFM, neck: nn.Module, head: DetectionHead, frames: str = "per_frame") -> None:
        super().__init__()
        if frames not in ("per_frame", "joint"):
            raise ValueError(f'`frames` must be "per_frame" or "joint", but got {frames!r}.')
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.frames = frames

    @classmethod
    def from_preset(
        cls, preset: str = "base", num_classes: int = 2, frames: str = "per_frame", **overrides: Any
    ) -> "EndoFMDetector":
        """A detector of a named size for K classes, without background; ``overrides`` are arguments of the backbone."""
        backbone = EndoFM.from_preset(preset, **overrides)
        channels, num_convs = SIZES[preset]
        strides = tuple(backbone.patch_size * 2**level // 2 for level in range(5))
        head = DetectionHead(channels, num_classes, num_convs, strides)
        return cls(backbone, DetectionPyramid(backbone.embed_dim, channels), head, frames)

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> list[FrameFeatures]:
        """First stage: what each frame of normalized clips ``(B, 3, T, H, W)`` shows, at each level."""
        num_frames = x.shape[2]
        if self.frames == "per_frame":
            x = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # (B*T, 3, 1, H, W)
        token_map = self.backbone.forward_features(x).token_map.transpose(1, 2).flatten(0, 1)  # (B*T, D, h, w)
        return self.head.describe(self.neck(token_map), num_frames)

    def forward(self, x: torch.Tensor, every_frame: bool = False) -> torch.Tensor:
        """Boxes of key frames ``(B, 2*K + 12, L)``, see :func:`endofm_monai.networks.blocks.split_predictions`.

        Args:
            x: normalized clips ``(B, 3, T, H, W)``: the key frame, then its supports in any order (or none); H and W in
                multiples of the patch size.
            every_frame: let each frame in turn be the key frame, with all others as supports: B * T predictions, not B.
        """
        levels = self.encode(x)
        if every_frame:  # features (B, T, ...) as (B * T, T, ...), in which each frame comes first in turn
            frames = torch.arange(x.shape[2], device=x.device)
            order = (frames.unsqueeze(1) + frames) % x.shape[2]  # (T, T)
            for index, level in enumerate(levels):
                parts = [part[:, order].flatten(0, 1) for part in level]
                levels[index] = FrameFeatures(parts[0], parts[1], parts[2], parts[3], parts[4])
        return self.head.refine(levels)
