# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from endofm_monai.weights.safe_load import WeightsError, read_checkpoint

__all__ = ["PublishedWeights", "clean_key", "clean_names", "read_weights"]

_WRAPPERS = re.compile(r"^(?:(?:module|backbone|model|_orig_mod)\.)+")
_WEIGHT_NORM = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


@dataclass(frozen=True)
class PublishedWeights:
    """The tensors of one file under their clean names, and where in the file they were.

    Attributes:
        file: the file.
        layout: how the file is organized, in words.
        part: which part of the file was taken.
        state: tensor by clean name (see :func:`clean_key`).
        resized: names of the tensors that were resampled to the network's size.
        notes: what else was changed on the way.
    """

    file: Path
    layout: str
    part: str
    state: dict[str, torch.Tensor]
    resized: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def clean_key(key: str) -> str:
    """The name of a tensor without its wrappers' prefixes, with weight norm in torch's present names.

    Files and networks are compared by clean keys, so that it does not matter on which side a wrapper was.

    Example::

        >>> clean_key("module.backbone.blocks.0.norm1.weight")
        'blocks.0.norm1.weight'
        >>> clean_key("head.last_layer.weight_g")
        'head.last_layer.parametrizations.weight.original0'
    """
    key = _WRAPPERS.sub("", key)
    for old, new in _WEIGHT_NORM.items():
        if key.endswith(old):
            return key.removesuffix(old) + new
    return key


def clean_names(keys: Iterable[str], owner: object) -> dict[str, str]:
    """Map clean to original keys; two that become one are an error, which names their ``owner``."""
    names: dict[str, str] = {}
    for key in keys:
        first = names.setdefault(clean_key(key), key)
        if first != key:
            raise WeightsError(f"{owner}: {first!r} and {key!r} are both {clean_key(key)!r} without their prefixes.")
    return names


def read_weights(path: str | os.PathLike, which: str = "teacher") -> PublishedWeights:
    """Read the weights of any published layout, or of this project's own files.

    ================================== ===========================================================================
    layout                             recognized by
    ================================== ===========================================================================
    training checkpoint                ``teacher`` and ``student`` (Endo-FM, SVT, DINO, this project), as dictionaries
                                       or as the first part of all names (a ``StudentTeacher``'s state dict)
    fine-tuned classifier              ``backbone_state_dict`` with ``state_dict`` (``polypdiag.pth``)
    nested state dict                  ``state_dict``, ``model``, ``model_state`` or ``network`` (``kumc.pth``,
                                       TimeSformer, this project's ``checkpoint.pt`` of a task)
    state dict                         nothing but tensors (SVT's release, ``cvc.pth``, timm, ``model.pt``)
    ================================== ===========================================================================

    Args:
        path: the file, see :func:`~endofm_monai.weights.safe_load.read_checkpoint`.
        which: ``"teacher"`` or ``"student"`` of a training checkpoint; other layouts hold one network, the teacher.

    Raises:
        WeightsError: when the file cannot be read safely, or holds no weights in one of these layouts.
        ValueError: when ``which`` is neither.
    """
    if which not in ("teacher", "student"):
        raise ValueError(f"`which` must be 'teacher' or 'student', but got {which!r}.")
    file = Path(path)
    content = _nest_pair(read_checkpoint(file))
    layout, keys = _recognize(content, which)
    if which == "student" and layout != "training checkpoint":
        raise WeightsError(f"{file}: is a {layout} and has no student; take `which='teacher'`.")
    if absent := [key for key in keys if not isinstance(content.get(key), dict)]:
        raise WeightsError(f"{file}: is a {layout} without {absent[0]!r}; it holds {', '.join(list(content)[:5])}.")
    tensors: dict[str, Any] = {}
    for part in [content[key] for key in keys] or [content]:
        tensors.update(part)
    if foreign := [key for key, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise WeightsError(f"{file}: is in no known layout; it holds {', '.join(foreign[:5])} besides tensors.")
    if not tensors:
        raise WeightsError(f"{file}: is a {layout} without any tensor.")
    state = {name: tensors[key] for name, key in clean_names(tensors, file).items()}
    return PublishedWeights(file, layout, " + ".join(keys) or "all", state)


def _nest_pair(content: dict[str, Any]) -> dict[str, Any]:
    """Part the state dict of a student and its teacher in two; any other content stays as it is."""
    names = [name.removeprefix("module.").split(".", 1) for name in content]
    if not all(len(name) == 2 and name[0] in ("student", "teacher") for name in names):
        return content
    pair: dict[str, Any] = {"student": {}, "teacher": {}}
    for (owner, name), value in zip(names, content.values(), strict=True):
        pair[owner][name] = value
    return pair


def _recognize(content: dict[str, Any], which: str) -> tuple[str, list[str]]:
    """The layout of a file's top level, and the keys below which the wanted state dicts are (none: the top level)."""
    if "teacher" in content or "student" in content:
        return "training checkpoint", [which]
    if "backbone_state_dict" in content:
        return "fine-tuned classifier", ["backbone_state_dict", "state_dict"]
    for key in ("state_dict", "model", "model_state", "network"):
        if isinstance(content.get(key), dict):
            return "nested state dict", [key]
    return "state dict", []
