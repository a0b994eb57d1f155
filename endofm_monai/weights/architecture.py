# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["describe_architecture", "is_backbone_key", "is_image_vit"]

_BACKBONE_ROOTS = {"cls_token", "pos_embed", "time_embed", "patch_embed", "blocks", "norm"}


def is_backbone_key(key: str) -> bool:
    """Whether the clean ``key`` names a tensor of the video or image transformer, not of a head or a decoder."""
    return key.partition(".")[0] in _BACKBONE_ROOTS


def is_image_vit(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether ``state`` (clean keys) is a transformer without temporal attention."""
    return "blocks.0.attn.qkv.weight" in state and not any(".temporal_attn." in key for key in state)


def describe_architecture(state: Mapping[str, torch.Tensor]) -> str:
    """What the shapes in ``state`` (clean keys) tell of the transformer, e.g. ``"embed_dim 768, depth 12, ..."``.

    The number of heads leaves no trace in the shapes. ``positions`` counts the entries of the position table, with the
    class token's.
    """
    dimensions = {"embed_dim": ("cls_token", 2), "positions": ("pos_embed", 1), "num_frames": ("time_embed", 1)}
    sizes = {name: state[key].shape[axis] for name, (key, axis) in dimensions.items() if key in state}
    if "patch_embed.proj.weight" in state:
        sizes["patch_size"] = state["patch_embed.proj.weight"].shape[-1]
    if depth := len({key.split(".")[1] for key in state if key.startswith("blocks.")}):
        sizes["depth"] = depth
    order = ("embed_dim", "depth", "patch_size", "positions", "num_frames")
    return ", ".join(f"{name} {sizes[name]}" for name in order if name in sizes) or "no transformer"
