# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Files of what was trained on a frozen backbone: adapters and head, and the SHA-256 of the backbone they need."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from endofm_monai.weights.files import BACKBONE_HASH
from endofm_monai.weights.layouts import PublishedWeights, WeightsError, clean_names, is_adapter_key, is_backbone_key


def trained_state(part: Any) -> dict[str, Any]:
    """The state dict of a part of a training; without what is frozen in a backbone, whose SHA-256 stands in for it."""
    state = part.state_dict()
    if not isinstance(part, nn.Module) or not any(getattr(module, "frozen", False) for module in part.modules()):
        return state
    frozen = _frozen(state)
    rest = {key: value for key, value in state.items() if key not in frozen.values()}
    return {**rest, BACKBONE_HASH: backbone_sha256(state)}


def load_trained_state(part: Any, state: Mapping[str, Any]) -> None:
    """Load what :func:`trained_state` gave into a part that has the same backbone; raises a ``WeightsError``."""
    if isinstance(part, nn.Module) and BACKBONE_HASH in state:
        own = part.state_dict()
        _compare(state[BACKBONE_HASH], backbone_sha256(own), "the checkpoint")
        state = {**own, **{key: value for key, value in state.items() if key != BACKBONE_HASH}}
    part.load_state_dict(state)


def complete_weights(weights: PublishedWeights, own: Mapping[str, torch.Tensor]) -> PublishedWeights:
    """Add the backbone in place, from a network's tensors ``own``, to weights that lack theirs, if it is that one."""
    if weights.backbone is None:
        return weights
    note = f"on the backbone in place, {'which it does not name' if not weights.backbone else weights.backbone[:12]}"
    if weights.backbone:
        _compare(weights.backbone, backbone_sha256(own), str(weights.file))
    state = {name: own[name] for name in _frozen(own)}
    return replace(weights, state={**state, **weights.state}, notes=(*weights.notes, note), backbone=None)


def backbone_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and float32 values of a backbone's tensors, adapters left out, in any state dict."""
    digest = hashlib.sha256()
    for name, key in sorted(_frozen(state).items()):
        tensor = state[key].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().numpy().data)
    return digest.hexdigest()


def _frozen(state: Mapping[str, Any]) -> dict[str, str]:
    """Clean to original keys of a backbone's tensors without adapters."""
    names = clean_names(state, "the network")
    return {name: key for name, key in names.items() if is_backbone_key(name) and not is_adapter_key(name)}


def _compare(needed: str, found: str, owner: str) -> None:
    if needed != found:
        raise WeightsError(
            f"{owner}: needs the backbone with the SHA-256 {needed}, but found one with {found}; name the file that it "
            "was trained on by `backbone_weights`."
        )
