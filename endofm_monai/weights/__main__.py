# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0
"""Command line: ``python -m endofm_monai.weights convert|compact|merge|inspect|list|show|download``."""

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import torch
from monai.utils import ensure_tuple_rep

from endofm_monai.utils import PathLike, run_from_command_line, sha256
from endofm_monai.weights.catalogue import download, list_published, show_published
from endofm_monai.weights.files import BACKBONE_HASH, save_weights, share_with, to_int8
from endofm_monai.weights.image_vit import resample_position_table, square_grid
from endofm_monai.weights.layouts import (
    PublishedWeights,
    WeightsError,
    describe_architecture,
    foreign_network,
    is_backbone_key,
    is_image_vit,
    read_checkpoint,
    read_weights,
)
from endofm_monai.weights.load import backbone_sha256, complete_weights

POSITIONS, KERNEL = "backbone.pos_embed", "backbone.patch_embed.proj.weight"


def convert(source: PathLike, target: PathLike, which: str = "teacher", head: bool = False) -> str:
    """Write the backbone of a file of weights as safetensors, under clean names, with its origin in the metadata.

    Args:
        source: the file, in any layout that ``load_published`` understands.
        target: the file to write, ``*.safetensors``; an old one is replaced only by a complete new one.
        which: "teacher" or "student" of a training checkpoint.
        head: also write the tensors outside the backbone; the backbone's names then start with ``backbone.``.
    """
    _check_target(target, source)
    weights = read_weights(source, which)
    if weights.backbone is not None:
        raise WeightsError(f"{source}: holds adapters and a head, but no backbone; `merge` them with theirs.")
    tensors = {name: tensor for name, tensor in weights.state.items() if is_backbone_key(name)}
    if not tensors:
        raise WeightsError(f"{source}: holds no backbone; its first tensor is {next(iter(weights.state))!r}.")
    if head:
        others = {name: tensor for name, tensor in weights.state.items() if name not in tensors}
        if not others:
            raise WeightsError(f"{source}: holds nothing besides the backbone; convert it without `head`.")
        tensors = {**{f"backbone.{name}": tensor for name, tensor in tensors.items()}, **others}
    digest = sha256([weights.file])
    origin = {"source_file": weights.file.name, "source_sha256": digest, "layout": weights.layout, "part": weights.part}
    save_weights(tensors, target, **origin, endofm_monai_version=version("endofm-monai"))
    return "\n".join([*_describe(weights), f"sha-256: {digest}", f"wrote {len(tensors)} tensors to {target}"])


def compact(
    source: PathLike,
    target: PathLike,
    shares_with: str | None = None,
    img_size: int | Sequence[int] | None = None,
    trained_size: int | Sequence[int] | None = None,
) -> str:
    """Write trained weights as a small file, a quarter as large: kernels in int8, with a scale an output channel.

    Args:
        source: ``model.pt`` of a training.
        target: the file to write, ``*.safetensors``; an old one is replaced only by a complete new one.
        shares_with: folder of the bundle whose backbone this network was trained on, frozen: what is alike is left out.
            It has to lie beside the bundle that the file is for.
        img_size: height and width (or one number for both) of the frames that the network is to see, if the training's
            were others: the position table is resampled once, smoothly, where the network would take the nearest entry.
            Give the network the same ``img_size``.
        trained_size: the ``img_size`` that the training's network had; by default a square.
    """
    _check_target(target, source)
    state, shared, done = read_checkpoint(source), dict[str, str](), ""
    if BACKBONE_HASH in state:
        shared[BACKBONE_HASH] = str(state.pop(BACKBONE_HASH))
    if foreign := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise WeightsError(f"{source}: expected the state dict of a network, found {', '.join(foreign[:5])} in it.")
    if img_size is not None:
        old, new = _resample_positions(state, source, img_size, trained_size)
        done = f", positions of {old[0]}x{old[1]} patches resampled to {new[0]}x{new[1]}"
    if shares_with:
        state, theirs = share_with(shares_with, state)
        shared |= theirs
    save_weights(to_int8(state), target, **shared)
    return f"wrote {len(state)} tensors to {target}, {Path(target).stat().st_size / 1e6:.1f} MB{done}"


def _resample_positions(state: dict[str, Any], source: PathLike, size: Any, trained_size: Any) -> list[tuple[int, int]]:
    """Resample the position table for frames of a size; gives rows and columns of what it was and of what it is."""
    if not {POSITIONS, KERNEL} <= state.keys():
        raise WeightsError(f"{source}: has no {POSITIONS} that could be resampled.")
    table, patch = state[POSITIONS], state[KERNEL].shape[-1]
    new = _grid("img_size", size, patch)
    old = square_grid(table.shape[1]) if trained_size is None else _grid("trained_size", trained_size, patch)
    if old is None or table.shape[1] != 1 + math.prod(old):
        expected = f"1 and {'x'.join(map(str, old)) if old else 'those of a square'}"
        found = f"{POSITIONS} has {table.shape[1]} entries, expected {expected}"
        raise WeightsError(f"{source}: {found}; say by `trained_size` what the training's `img_size` was.")
    state[POSITIONS] = resample_position_table(table, new, old)
    return [old, new]


def _grid(name: str, size: int | Sequence[int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches of frames of a size."""
    height, width = ensure_tuple_rep(size, 2)
    if height % patch or width % patch:
        raise ValueError(f"`{name}` must be a multiple of {patch}, the side of a patch, but got {size}.")
    return height // patch, width // patch


def merge(adapters: PathLike, backbone: PathLike, target: PathLike) -> str:
    """Write adapters and head together with the backbone that they were trained on, as one file to share.

    Args:
        adapters: ``model.pt`` of a training with a frozen backbone.
        backbone: the training's ``backbone_weights``.
        target: the file to write, ``*.safetensors``; an old one is replaced only by a complete new one.
    """
    _check_target(target, adapters, backbone)
    weights, whole = read_weights(adapters), read_weights(backbone).state
    if weights.backbone is None:
        raise WeightsError(f"{adapters}: is complete, or at least names no backbone that it needs.")
    embedding = ("patch_embed.", "pos_embed", "time_embed")  # which the published segmentation network leaves out
    inner = {name: value for name, value in whole.items() if not name.startswith(embedding)}
    try:
        complete = complete_weights(weights, inner if weights.backbone == backbone_sha256(inner) else whole).state
    except WeightsError as error:
        if not is_image_vit(whole):
            raise
        made = "is an image ViT, of which the training made its backbone; scripts/build_bundle.py writes the network"
        raise WeightsError(f"{backbone}: {made}.") from error
    state = {f"backbone.{name}" if is_backbone_key(name) else name: value for name, value in complete.items()}
    files = {"source_file": weights.file.name, "source_sha256": sha256([weights.file])}
    save_weights(state, target, **files, backbone_file=Path(backbone).name)
    return f"wrote {len(state)} tensors to {target}"


def inspect(file: PathLike, which: str = "teacher") -> str:
    """Say what a file of weights holds: layout, architecture, tensors, and for a converted file its origin."""
    lines = _describe(read_weights(file, which))
    if Path(file).suffix == ".safetensors":
        with safetensors.safe_open(file, framework="pt") as archive:
            lines += [f"{name}: {value}" for name, value in sorted((archive.metadata() or {}).items())]
    return "\n".join(lines)


def _check_target(target: PathLike, *sources: PathLike) -> None:
    if Path(target).suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in '.safetensors'.")
    if Path(target).resolve() in [Path(source).resolve() for source in sources]:
        raise ValueError(f"{target}: is a file to read; name another one to write.")


def _describe(weights: PublishedWeights) -> list[str]:
    others = sorted({name.partition(".")[0] for name in weights.state if not is_backbone_key(name)})
    kind = "image ViT" if is_image_vit(weights.state) else "video transformer"
    return [
        f"file: {weights.file}",
        f"layout: {weights.layout}, {weights.part}",
        f"architecture: {foreign_network(weights.state) or f'{kind}, {describe_architecture(weights.state)}'}",
        f"tensors: {len(weights.state)} ({', '.join(sorted({str(t.dtype) for t in weights.state.values()}))})",
        f"outside the backbone: {', '.join(others) or 'none'}",
        *([f"needs the backbone: {weights.backbone or 'not named'}"] if weights.backbone is not None else []),
    ]


if __name__ == "__main__":
    commands = {
        **{"convert": convert, "compact": compact, "merge": merge, "inspect": inspect},
        **{"list": list_published, "show": show_published, "download": download},
    }
    run_from_command_line(commands, name="endofm_monai.weights")
