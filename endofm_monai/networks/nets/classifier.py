# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any, ClassVar  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
import torch.nn.functional as F
from torch import nn

from endofm_monai.networks.nets.endofm import EndoFM
from endofm_monai.networks.nets.frame_vit import FrameViT


class AttentiveHead(nn.Module):
    """Classification head that looks at all tokens: a learned query attends over them, then a linear layer.

    The attentive probe of V-JEPA (Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations
    from Video", 2024, section 3.3) in its shortest form. It finds a small polyp that the class token may have missed.
    """

    def __init__(self, embed_dim: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.linear = _initialized(nn.Linear(embed_dim, num_classes), std=0.01)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, num_classes)`` of tokens ``(B, L, D)``, in any order."""
        tokens = self.norm(tokens)
        query = self.query.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
        attended, _ = self.attention(query, tokens, tokens, need_weights=False)
        return self.linear(attended[:, 0])


def _initialized(head: nn.Linear, std: float) -> nn.Linear:
    nn.init.normal_(head.weight, std=std)  # as published
    nn.init.zeros_(head.bias)
    return head


class EndoFMClassifier(nn.Module):
    """Classifies clips: the backbone, and a head on its class token or on all of its tokens.

    The published fine-tuned file (``polypdiag.pth``) loads with :func:`endofm_monai.weights.load_published`.

    Args:
        backbone: the video transformer, or an image ViT with adapters.
        head: takes class tokens ``(B, D)``, as published; an :class:`AttentiveHead` takes all tokens ``(B, L, D)``.
        mode: what is trained: ``"full"`` trains everything, as published, ``"last_blocks"`` the last blocks of the
            backbone, its final normalization and the head, ``"adapter"`` the backbone's adapters and the head,
            ``"linear_probe"`` only the head. What is frozen is also kept in evaluation mode, so that drop path does not
            blur it.
        last_blocks: number of blocks that ``"last_blocks"`` trains.

    Example::

        >>> classifier = EndoFMClassifier.from_preset("tiny", num_classes=2)
        >>> classifier(torch.rand(1, 3, 8, 224, 224)).shape
        torch.Size([1, 2])
    """

    published_prefixes: ClassVar[dict[str, str]] = {"linear.": "head."}

    def __init__(self, backbone: EndoFM | FrameViT, head: nn.Module, mode: str = "full", last_blocks: int = 1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.takes_all_tokens = isinstance(head, AttentiveHead)
        depth = len(backbone.blocks)
        if mode not in ("full", "last_blocks", "adapter", "linear_probe"):
            raise ValueError(f'`mode` must be "full", "last_blocks", "adapter" or "linear_probe", but got {mode!r}.')
        if mode == "last_blocks" and not 0 < last_blocks <= depth:
            raise ValueError(f"`last_blocks` must be from 1 to the backbone's depth {depth}, but got {last_blocks}.")
        frozen: list[Any] = [backbone] if mode == "linear_probe" else []
        if mode == "last_blocks":
            frozen = [*backbone.stem(), *backbone.blocks[: depth - last_blocks]]
        for part in frozen:
            part.requires_grad_(False)
        self._frozen = [name for name, module in self.named_modules() if any(module is part for part in frozen)]
        if mode == "adapter":
            backbone.freeze()
        unseen = backbone.blocks[-1].adapter_pre_mlp  # by the class token
        if unseen is not None and not self.takes_all_tokens:
            unseen.requires_grad_(False)

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
        """With a backbone of a named size; ``head`` is ``"linear"``, of the class token, or ``"attentive"``."""
        backbone = EndoFM.from_preset(preset, **overrides)
        if head not in ("linear", "attentive"):
            raise ValueError(f'`head` must be "linear" or "attentive", but got {head!r}.')
        if head == "linear":
            return cls(backbone, _initialized(nn.Linear(backbone.embed_dim, num_classes), 0.01), mode, last_blocks)
        block: Any = backbone.blocks[0]
        return cls(backbone, AttentiveHead(backbone.embed_dim, num_classes, block.attn.num_heads), mode, last_blocks)

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


class DropoutLinear(nn.Linear):
    """A linear layer whose input is dropped out by half: the head of ST-Adapter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, num_classes)`` of class tokens ``(B, D)``."""
        return F.linear(F.dropout(x, 0.5, self.training), self.weight, self.bias)


class STAdapterClassifier(EndoFMClassifier):
    """The rival: a frozen image ViT that encodes frame by frame, with adapters along time (ST-Adapter, NeurIPS 2022).

    The means of the frames' class tokens are normalized, dropped out and classified. Adapters and head alone learn. The
    released files load once CLIP's image tower is in place.
    """

    @classmethod
    def from_preset(cls, preset: str = "base", num_classes: int = 2, **overrides: Any) -> "STAdapterClassifier":  # type: ignore[override]
        """Of a named size; ``overrides`` are arguments of :class:`FrameViT`."""
        backbone = FrameViT.from_preset(preset, **overrides)
        return cls(backbone, _initialized(DropoutLinear(backbone.embed_dim, num_classes), 0.02), "adapter")
