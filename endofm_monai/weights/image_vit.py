# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F

from endofm_monai.networks.nets import EndoFM, FrameViT
from endofm_monai.weights.layouts import PublishedWeights, WeightsError, check_types, is_backbone_key

_MARKS = {  # of the variants of FrameViT
    "timm": "with a table of positions",
    "clip": "with a normalization before the first block (CLIP)",
    "dinov3": "whose positions turn queries and keys (DINOv3)",
}
_RESAMPLED = ("pos_embed", "patch_embed.proj.weight")
_LARGEST_PATCH = 64  # pixels: to resample a kernel takes memory by their fourth power
_REGISTERS = "register tokens dropped (features differ from the image model's)"
_OURS = {"encoder", "decoder", "neck"}  # which this project's networks have for their task
_DROPPED = {
    **dict.fromkeys(("head", "dino_head", "ibot_head"), "head dropped"),
    **dict.fromkeys(_OURS, "what its task adds dropped"),
    **{f"decoder_{part}": "decoder dropped" for part in ("embed", "pos_embed", "blocks", "norm", "pred")},
    **{"mask_token": "mask token dropped", "local_cls_norm": "normalization of local views dropped"},
    **dict.fromkeys(("reg_token", "register_tokens"), _REGISTERS),
}


def video_from_image(weights: PublishedWeights, network: EndoFM | FrameViT) -> PublishedWeights:
    """Make the weights of a video transformer that starts as an image ViT, frame by frame.

    Spatial tensors are kept. Temporal attention starts as a copy of the spatial one, as in TimeSformer; with
    ``temporal_fc`` and ``time_embed`` at zero it has no effect yet, so that a clip of equal frames gives the image
    model's features. LayerScale is folded into the layers that it scales, which is exact. The position table and the
    patch kernel are resampled to the size of ``network``; whether width and depth fit is not looked at.

    Args:
        weights: an image ViT in timm's layout (``vit_base_patch16_224``, ``vit_small_patch14_dinov2``, ...), or
            DINOv3's own.
        network: the video transformer to make them for; it is not changed.
    """
    kind, own = type(network).__name__, network.state_dict()
    ours, found = variant_of(own), variant_of(weights.state)
    if ours != found:
        build = f"build a FrameViT with `variant={found!r}`"
        raise WeightsError(f"{weights.file}: is an image ViT {_MARKS[found]}, not {_MARKS[ours]} as {kind}: {build}.")
    if found == "dinov3":
        weights = replace(weights, state=_from_dinov3(weights.state, own))
    others = sorted({name.partition(".")[0] for name in weights.state if not is_backbone_key(name)})
    if unknown := [name for name in others if name not in _DROPPED]:
        raise WeightsError(f"{weights.file}: is an image ViT with {unknown}, for which {kind} has no counterpart.")
    state = {name: tensor for name, tensor in weights.state.items() if is_backbone_key(name)}
    check_types(state, weights.file)
    state = {name: tensor.float() for name, tensor in state.items()}
    tables = [name for name in _RESAMPLED if name in own]  # the published segmentation network has none
    if absent := [name for name in tables if name not in state]:
        raise WeightsError(f"{weights.file}: is an image ViT without {absent}.")
    _check_shapes(state, own, weights.file)
    mlp = [state[name].shape for name in state if name.startswith("blocks.0.mlp.") and name.endswith(".weight")]
    if len(mlp) != 2 or mlp[0] != mlp[1][::-1]:
        raise WeightsError(f"{weights.file}: is an image ViT with a gated MLP (SwiGLU), but {kind} has a plain one.")

    _fold_layer_scale(state)
    if network.temporal:
        _add_temporal_attention(state)
    if "time_embed" in own:
        state["time_embed"] = torch.zeros(1, own["time_embed"].shape[1], state["pos_embed"].shape[2])
    if "pos_embed" in tables:
        table = state["pos_embed"]
        fits = network.grid_size if table.shape[1] == own["pos_embed"].shape[1] else None
        is_ours = not _OURS.isdisjoint(others)  # perhaps of frames of 16:9, whose number is that of a square, too
        if (grid := (is_ours and fits) or square_grid(table.shape[1]) or fits) is None:
            raise WeightsError(f"{weights.file}: `pos_embed` has {table.shape[1]} entries, which are of no square.")
        state["pos_embed"] = resample_position_table(table, network.grid_size, grid)
    if "patch_embed.proj.weight" in tables:
        state["patch_embed.proj.weight"] = resample_patch_kernel(state["patch_embed.proj.weight"], network.patch_size)
    resized = [name for name in tables if not torch.equal(state[name], weights.state[name].float())]
    notes = [f"resampled {len(resized)} ({', '.join(resized)})"] if resized else []
    notes += ["temporal attention starts from the spatial one"] if network.temporal else []
    notes += dict.fromkeys(_DROPPED[name] for name in others)
    return replace(weights, layout=f"image ViT in a {weights.layout}", state=state, notes=tuple(notes))


def _check_shapes(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], file: object) -> None:
    """Raise a ``WeightsError`` where a tensor cannot be what its name says, before anything is computed of it."""
    for name, tensor in state.items():
        if layer := _scaled_layer(name):
            wanted = state[f"{layer}.bias"].shape if f"{layer}.bias" in state else f"those of {layer}.bias"
            fits = tensor.shape == wanted
        elif name == "patch_embed.proj.weight":
            wanted = f"(D, C, P, P), P at most {_LARGEST_PATCH}"
            fits = tensor.ndim == 4 and tensor.shape[2] == tensor.shape[3] <= _LARGEST_PATCH
        else:
            wanted = f"{own[name].ndim} dimensions" if name in own else "any"
            fits = name not in own or tensor.ndim == own[name].ndim
        if not fits or not tensor.numel():
            raise WeightsError(f"{file}: `{name}` has the shape {tuple(tensor.shape)}, but needs {wanted}.")


def _scaled_layer(name: str) -> str:
    """The layer whose outputs a tensor of LayerScale scales, or nothing for others."""
    layers = {".ls1.gamma": ".attn.proj", ".ls2.gamma": ".mlp.fc2"}
    return next((name.removesuffix(scale) + layer for scale, layer in layers.items() if name.endswith(scale)), "")


def _fold_layer_scale(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if _scaled_layer(name)]:
        gamma, layer = state.pop(name), _scaled_layer(name)
        for key in (f"{layer}.weight", f"{layer}.bias"):
            state[key] = torch.einsum("o,o...->o...", gamma, state[key])


def _add_temporal_attention(state: dict[str, torch.Tensor]) -> None:
    for name in list(state):
        if ".norm1." in name or ".attn." in name:
            state[name.replace(".norm1.", ".temporal_norm1.").replace(".attn.", ".temporal_attn.")] = state[name]
        if ".attn.proj." in name:
            state[name.replace(".attn.proj.", ".temporal_fc.")] = torch.zeros_like(state[name])


def variant_of(state: Mapping[str, torch.Tensor]) -> str:
    """Which variant of :class:`FrameViT` has the tensors of ``state``."""
    if "norm_pre.weight" in state:
        return "clip"
    is_timms = "blocks.0.gamma_1" in state and "reg_token" in state and "pos_embed" not in state
    return "dinov3" if "storage_tokens" in state or is_timms else "timm"


def _from_dinov3(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a DINOv3 in its own layout or timm's, under its own names; keys get no bias, whatever the file has."""
    names = {"reg_token": "storage_tokens", ".gamma_1": ".ls1.gamma", ".gamma_2": ".ls2.gamma"}
    renamed = {"rope_embed.periods": own["rope_embed.periods"]}  # timm's files have none
    for name, tensor in state.items():
        for theirs, new in names.items():
            name = name.replace(theirs, new)
        renamed[name] = tensor
    for attention in [name.removesuffix(".qkv.weight") for name in renamed if name.endswith(".attn.qkv.weight")]:
        renamed.pop(f"{attention}.qkv.bias_mask", None)
        none = torch.zeros(renamed[f"{attention}.qkv.weight"].shape[1])
        query, _, value = renamed.pop(f"{attention}.qkv.bias", torch.cat([none] * 3)).chunk(3)
        query, value = renamed.pop(f"{attention}.q_bias", query), renamed.pop(f"{attention}.v_bias", value)
        renamed[f"{attention}.qkv.bias"] = torch.cat([query, none, value])
    return renamed


def square_grid(entries: int) -> tuple[int, int] | None:
    """Rows and columns of a position table of so many entries, with or without the class token's, if it is square."""
    side = math.isqrt(entries)
    return (side, side) if entries - side * side < 2 else None


def resample_position_table(table: torch.Tensor, grid_size: tuple[int, int], old_grid: tuple[int, int]) -> torch.Tensor:
    """Resample the position table of an image ViT by antialiased bicubic interpolation.

    From ``(1, 1 + N, D)`` with the class token's entry first, or ``(1, N, D)`` without it, N = rows * columns of
    ``old_grid``, to ``(1, 1 + rows * columns, D)``; the class token's entry is kept, or zero when there was none.
    """
    class_entry, patches = table.split([table.shape[1] - math.prod(old_grid), math.prod(old_grid)], dim=1)
    if class_entry.shape[1] == 0:
        class_entry = torch.zeros_like(table[:, :1])
    if old_grid != grid_size:
        grid = patches.transpose(1, 2).unflatten(2, old_grid)  # (1, D, rows, columns)
        grid = F.interpolate(grid, size=grid_size, mode="bicubic", antialias=True)
        patches = grid.flatten(2).transpose(1, 2)
    return torch.cat([class_entry, patches], dim=1)


def resample_patch_kernel(kernel: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Resample the patch embedding ``(D, C, P, P)`` to another P so that resized patches give the same tokens.

    Interpolating the kernel like an image would change the size of the tokens. The pseudo-inverse of the (bicubic)
    resizing of patches gives the kernel w' with <resize(x), w'> = <x, w>: exactly for larger patches, in the least
    squares for smaller ones (Beyer et al., "FlexiViT: One Model for All Patch Sizes", CVPR 2023, section 3.4).
    """
    size = kernel.shape[-1]
    if size == patch_size:
        return kernel
    pixels = torch.eye(size * size, dtype=torch.float64).reshape(-1, 1, size, size)
    resize = F.interpolate(pixels, size=(patch_size, patch_size), mode="bicubic", antialias=True).flatten(1)
    resampled = kernel.double().flatten(2) @ torch.linalg.pinv(resize).T
    return resampled.unflatten(2, (patch_size, patch_size)).to(kernel.dtype)
