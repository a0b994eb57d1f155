# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The project's own files of weights: safetensors, small in int8 and without what the file of another bundle holds."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from endofm_monai.utils import PathLike, atomic_path, printable, sha256

SCALE = ".int8_scale"  # added to the name of a tensor in int8: what its numbers are multiplied by, by output channel
BUNDLE, HASH = "shares_with_bundle", "shared_file_sha256"  # metadata of a file that lacks what another one holds
BACKBONE_HASH = "backbone_sha256"  # of a file of adapters and head: the frozen backbone that they were trained on
WEIGHTS = Path("models", "model.safetensors")  # of a bundle


def save_weights(state: Mapping[str, torch.Tensor], path: PathLike, **notes: str) -> None:
    """Write a safetensors file, whole or not at all, whose bytes depend on nothing but tensors and notes.

    Tensors may share memory, each is written on its own. The ``notes`` are its metadata, with ``format``.
    """
    metadata = {"format": "pt", **{name: printable(note) for name, note in notes.items()}}
    data = memoryview(safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in state.items()}))
    end = 8 + int.from_bytes(data[:8], "little")
    # the library would write its metadata in an order by chance
    header = json.dumps({"__metadata__": metadata, **json.loads(bytes(data[8:end]))}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(data[end:])


def to_int8(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round the kernels of layers to int8, with a scale for each output channel; all else stays."""
    small: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.ndim > 1:
            kernel = tensor.float()  # in bfloat16 the largest may be 128 steps, which int8 takes for -128
            scale = kernel.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
            small[name] = (kernel / _as_factor(scale, kernel)).round().to(torch.int8)
            small[name + SCALE] = scale
        else:
            small[name] = tensor
    return small


def read_compact(path: Path) -> dict[str, Any]:
    """Read a safetensors file, with what it shares with another bundle's, as floating point numbers.

    That bundle lies beside the one of the file, and its weights are compared with the hash that the file names.
    """
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as archive:
        notes = archive.metadata() or {}
    for name in [name for name in tensors if name.endswith(SCALE)]:
        scale, kernel = tensors.pop(name), name.removesuffix(SCALE)
        if scale.shape != tensors[kernel].shape[:1]:  # which would be multiplied to something of any size
            raise ValueError(f"{path}: {name!r} has the shape {tuple(scale.shape)}, for {tuple(tensors[kernel].shape)}")
        tensors[kernel] = tensors[kernel] * _as_factor(scale, tensors[kernel])
    named = {BACKBONE_HASH: notes[BACKBONE_HASH]} if BACKBONE_HASH in notes else {}
    return {**(_shared(path, notes) if BUNDLE in notes else {}), **tensors, **named}


def share_with(bundle: PathLike, state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Leave out of ``state`` what the backbone of another bundle holds alike; give the rest, and metadata to write."""
    file = Path(bundle).resolve() / WEIGHTS
    theirs = _backbone_of(file)
    rest = {name: value for name, value in state.items() if name not in theirs or not torch.equal(value, theirs[name])}
    return rest, {BUNDLE: file.parents[1].name, HASH: sha256([file])}


def _shared(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    name = notes[BUNDLE]
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{path}: `{BUNDLE}` must be the name of a bundle's folder, but is {name!r}")
    # files may be links into a store, and folders links as well
    places = [Path(found).parents[2] / name / WEIGHTS for found in (os.path.abspath(path), os.path.realpath(path))]
    file = next((file for file in places if file.is_file()), places[0])
    if not file.is_file():
        raise ValueError(
            f"{path}: shares its backbone with {file}, which is missing; keep the bundles side by side, or make one "
            "that stands alone with scripts/build_bundle.py"
        )
    if (found := sha256([file])) != notes.get(HASH):
        raise ValueError(f"{path}: shares its backbone with {file}, but not this one: its SHA-256 is {found}")
    return _backbone_of(file)


def _backbone_of(file: Path) -> dict[str, Any]:
    return {key: value for key, value in read_compact(file).items() if key.startswith("backbone.")}


def _as_factor(scale: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return scale.reshape(-1, *[1] * (kernel.ndim - 1))
