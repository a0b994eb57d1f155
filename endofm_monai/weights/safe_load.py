# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

__all__ = ["WeightsError", "read_checkpoint"]

# The training loops of Endo-FM, SVT and DINO save their arguments, and learning rates taken from a numpy schedule.
_SCALAR = np.float64(0).__reduce__()[0]  # named numpy.core.multiarray.scalar up to numpy 1
_ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype(np.float64)),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


class WeightsError(ValueError):
    """A file of weights that cannot be read safely, or that does not fit the network; the message names the file."""


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file of weights without running anything that it contains.

    Args:
        path: a ``.safetensors`` file, a numpy ``.npz`` archive, or (any other suffix) what ``torch.save`` wrote.

    Returns:
        the top level of the file, tensors on the CPU; those of a large ``torch.save`` file are mapped, not read.

    Raises:
        WeightsError: when the file is missing, damaged, holds no dictionary, or needs Python objects other than
            tensors, plain containers, ``argparse.Namespace`` and numpy's float64 scalars.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file of weights.")
    try:
        content = _read(path)
    except Exception as error:  # a damaged file makes the parsers raise nearly anything
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path}: needs the Python object {match[1]}, which a file of weights may not run; nothing was loaded. "
                "Ask its author for the plain tensors (`torch.save(network.state_dict(), ...)` or safetensors)."
            ) from error
        raise WeightsError(
            f"{path}: cannot be read: damaged, incomplete or no weights ({type(error).__name__})."
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: must hold a dictionary of weights, but holds a {type(content).__name__}.")
    return {str(key): value for key, value in content.items()}


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    with torch.serialization.safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
