# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any, ClassVar  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from torch import nn

from endofm_monai.networks.blocks import AttentiveHead
from endofm_monai.networks.nets.endofm import EndoFM

__all__ = ["EndoFMClassifier"]


class EndoFMClassifier(nn.Module):
    """Classifies clips: the backbone, and a head on its class token or on all of its tokens.

    The published fine-tuned file (``polypdiag.pth``) loads with :func:`endofm_monai.weights.load_published`.

    Args:
        backbone: the backbone.
        head: takes class tokens ``(B, D)``; an :class:`~endofm_monai.networks.blocks.AttentiveHead` takes all tokens.
        mode: what is trained: ``"full"`` trains everything, as published, ``"last_blocks"`` the last blocks of the
            backbone, its final normalization and the head, ``"linear_probe"`` only the head. What is frozen is also
            kept in evaluation mode, so that drop path does not blur it.
        last_blocks: number of blocks that ``"last_blocks"`` trains.

    Raises:
        ValueError: when ``mode`` is none of these, or the backbone has not as many blocks.

    Example::

        >>> network = EndoFMClassifier.from_preset("tiny", num_classes=2)
        >>> network(torch.rand(1, 3, 8, 224, 224)).shape
        torch.Size([1, 2])
    """

    published_prefixes: ClassVar[dict[str, str]] = {"linear.": "head."}

    def __init__(self, backbone: EndoFM, head: nn.Module, mode: str = "full", last_blocks: int = 1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.takes_all_tokens = isinstance(head, AttentiveHead)
        depth = len(backbone.blocks)
        if mode not in ("full", "last_blocks", "linear_probe"):
            raise ValueError(f'`mode` must be "full", "last_blocks" or "linear_probe", but got {mode!r}.')
        if mode == "last_blocks" and not 0 < last_blocks <= depth:
            raise ValueError(f"`last_blocks` must be from 1 to the backbone's depth {depth}, but got {last_blocks}.")
        frozen: list[str] = []
        if mode == "linear_probe":
            frozen = ["backbone"]
        elif mode == "last_blocks":
            frozen = ["backbone.patch_embed", *(f"backbone.blocks.{index}" for index in range(depth - last_blocks))]
            for table in (backbone.cls_token, backbone.pos_embed, backbone.time_embed):
                table.requires_grad_(False)
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)
        self._frozen = frozen

    @classmethod
    def from_preset(
        cls,
        preset: str = "base",
        num_classes: int = 2,
        head: str = "linear",
        mode: str = "full",
        last_blocks: int = 1,
        **overrides: Any,
    ) -> "EndoFMClassifier":
        """Make a classifier with a backbone of a named size.

        Args:
            preset: size of the backbone, see :meth:`EndoFM.from_preset`.
            num_classes: number of logits.
            head: ``"linear"``, on the class token as published (weights of std 0.01), or ``"attentive"``.
            mode: see the class.
            last_blocks: see the class.
            overrides: constructor arguments of the backbone, which win over the preset's.

        Raises:
            ValueError: when there is no such preset, head or mode.
        """
        backbone = EndoFM.from_preset(preset, **overrides)
        if head == "attentive":
            block: Any = backbone.blocks[0]
            attentive = AttentiveHead(backbone.embed_dim, num_classes, block.attn.num_heads)
            return cls(backbone, attentive, mode, last_blocks)
        if head != "linear":
            raise ValueError(f'`head` must be "linear" or "attentive", but got {head!r}.')
        linear = nn.Linear(backbone.embed_dim, num_classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return cls(backbone, linear, mode, last_blocks)

    def train(self, mode: bool = True) -> "EndoFMClassifier":
        """Set training mode, except of what is frozen."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self

    @torch.jit.export
    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees of clips ``(B, C, T, H, W)``: class tokens ``(B, D)``, or all tokens ``(B, L, D)``."""
        if not self.takes_all_tokens:
            return self.backbone(x)
        features = self.backbone.forward_features(x)
        return torch.cat([features.class_token.unsqueeze(1), features.token_map.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, num_classes)`` of normalized clips ``(B, C, T, H, W)``."""
        return self.head(self.features(x))
