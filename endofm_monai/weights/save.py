# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
import os
from collections.abc import Mapping

import safetensors.torch
import torch

from endofm_monai.utils import atomic_path, printable


def save_weights(state: Mapping[str, torch.Tensor], path: str | os.PathLike, **notes: str) -> None:
    """Write a safetensors file, whole or not at all, whose bytes depend on nothing but tensors and notes.

    Args:
        state: the tensors; they may share memory, each is written on its own.
        path: the file.
        notes: what its metadata say besides ``format``.
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
