# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
import torch.nn.functional as F
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from endofm_monai.networks.blocks import SpatialTemporalAdapter

Made = TypeVar("Made", bound="Backbone")
BACKBONE_PRESETS: dict[str, dict[str, int]] = {
    "mini": {"embed_dim": 192, "depth": 4, "num_heads": 3},
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},  # the published one, 121,258,752 parameters
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
PRODUCTS = {torch.ops.aten.addmm.default, torch.ops.aten.mm.default}
KEPT = {torch.ops.aten.convolution.default} | {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kind}").default
    for kind in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
}


class PatchProjection(nn.Conv2d):
    """A convolution by steps of its kernel's size, computed as a product: on a CPU in a fraction of the time."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Project the patches of frames ``(N, C, H, W)``, to ``(N, D, rows, columns)``."""
        height, width = self.kernel_size
        patches = input.unflatten(3, [-1, width]).unflatten(2, [-1, height]).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Backbone(nn.Module):
    """What :class:`EndoFM`, which explains the arguments, and :class:`FrameViT` share."""

    frozen: bool = False

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        embed_dim: int,
        adapters: int,
        activation_checkpointing: bool | Literal["selective"],
        patch_bias: bool = True,
    ) -> None:
        super().__init__()
        if adapters not in (0, 1, 2):
            raise ValueError(f"`adapters` must be 0, 1 or 2, but got {adapters}.")
        if activation_checkpointing not in (False, True, "selective"):
            kinds = "True, False or 'selective'"
            raise ValueError(f"`activation_checkpointing` must be {kinds}, but got {activation_checkpointing!r}.")
        height, width = ensure_tuple_rep(img_size, 2)
        if height % patch_size or width % patch_size:
            raise ValueError(f"`img_size` must be a multiple of `patch_size`={patch_size}, but got {img_size}.")
        self.grid_size: tuple[int, int] = (height // patch_size, width // patch_size)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.activation_checkpointing = activation_checkpointing
        projection = PatchProjection(3, embed_dim, patch_size, patch_size, bias=patch_bias)
        self.patch_embed: nn.Module = nn.Sequential(OrderedDict(proj=projection))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))

    @classmethod
    def from_preset(cls: type[Made], preset: str = "base", **overrides: Any) -> Made:
        """A backbone of a named size, see ``BACKBONE_PRESETS``; ``overrides`` are constructor arguments, which win."""
        if preset not in BACKBONE_PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(BACKBONE_PRESETS)}, but got {preset!r}.")
        return cls(**{**BACKBONE_PRESETS[preset], **overrides})

    def embed_patches(self, x: torch.Tensor) -> torch.Tensor:
        """Patches ``(B*T, D, rows, columns)`` of the frames of clips ``(B, C, T, H, W)``, without positions."""
        height, width, patch = x.shape[3], x.shape[4], self.patch_size
        if height % patch != 0 or width % patch != 0 or height * width * x.shape[2] == 0:
            raise ValueError(f"Frames must have sides in multiples of {patch} pixels, got {height}x{width}.")
        return self.patch_embed(x.transpose(1, 2).flatten(0, 1))

    @torch.jit.ignore
    def run(self, part: Callable[..., Any], *args: Any) -> Any:
        """Run a part of the network, whose backward pass recomputes what ``activation_checkpointing`` says."""
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return part(*args)
        if self.activation_checkpointing != "selective":
            return checkpoint(part, *args, use_reentrant=False)
        contexts = partial(create_selective_checkpoint_contexts, _keep_products)
        return checkpoint(part, *args, use_reentrant=False, context_fn=contexts)

    def stem(self) -> list[nn.Module | nn.Parameter]:
        """What comes before the first block."""
        return [self.patch_embed, *self.parameters(recurse=False)]

    def freeze(self) -> None:
        """Let only the adapters learn; all else, also norms, keeps its values and stays in evaluation mode."""
        if not self._adapters():
            raise ValueError("A frozen backbone learns nothing without adapters: set `adapters` to 1 or 2.")
        self.requires_grad_(False)
        for adapter in self._adapters():
            adapter.requires_grad_(True)
        self.frozen = True
        self.eval()

    def train(self, mode: bool = True) -> Any:
        """Set training mode, unless the backbone is frozen: drop path would blur what does not learn."""
        return super().train(mode and not self.frozen)

    def reset_linear_layers(self) -> None:
        """Initialize as published: normal weights (std 0.02), zero biases and ``temporal_fc``, fresh adapters."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if name.endswith("temporal_fc"):
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)
        for module in self._adapters():
            module.reset_parameters()

    def _adapters(self) -> list[SpatialTemporalAdapter]:
        return [module for module in self.modules() if isinstance(module, SpatialTemporalAdapter)]


def _keep_products(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep what is dear to compute, but not the widest: the first product of an MLP."""
    if operation in KEPT or (operation in PRODUCTS and args[-1].shape[1] < 4 * args[-1].shape[0]):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
