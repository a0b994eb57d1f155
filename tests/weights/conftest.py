# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from endofm_monai.networks.nets import EndoFM
from endofm_monai.networks.nets.student_teacher import ProjectionHead, ProjectionNetwork

NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "weight_g")


@pytest.fixture
def make_backbone() -> Callable[..., EndoFM]:
    """The tiny backbone of the golden file, with overrides."""

    def make(**overrides: int) -> EndoFM:
        sizes = {"img_size": 64, "patch_size": 16, "num_frames": 4, "embed_dim": 48, "depth": 3, "num_heads": 4}
        return EndoFM(**{**sizes, **overrides}).eval()

    return make


@pytest.fixture
def make_network(make_backbone) -> Callable[[], nn.Module]:
    """The tiny backbone with the tiny projection head of the golden file."""
    return lambda: ProjectionNetwork(make_backbone(), ProjectionHead(48, 40, hidden_dim=32, bottleneck_dim=16)).eval()


@pytest.fixture
def wrapper_state(arr, make_network) -> Callable[..., dict[str, torch.Tensor]]:
    """The published wrapper ``backbone.*`` + ``head.*``, weight norm with old names; ``salt`` varies the values."""

    def make(salt: str = "") -> dict[str, torch.Tensor]:
        state = {}
        for key, tensor in make_network().state_dict().items():
            key = key.replace("parametrizations.weight.original0", "weight_g")
            key = key.replace("parametrizations.weight.original1", "weight_v")
            name = key.removeprefix("backbone.").removeprefix("head.")
            state[key] = arr(name + salt, tensor.shape, 0.1, float(name.endswith(NORMS)))
        return state

    return make


@pytest.fixture
def backbone_state(wrapper_state) -> Callable[..., dict[str, torch.Tensor]]:
    """The tensors of the published wrapper's backbone under the names of the bare backbone."""

    def make(salt: str = "") -> dict[str, torch.Tensor]:
        state = wrapper_state(salt)
        return {key.removeprefix("backbone."): state[key] for key in state if key.startswith("backbone.")}

    return make


@pytest.fixture
def training_checkpoint(wrapper_state) -> dict[str, object]:
    """What the published pre-training writes: two networks, optimizer, arguments, and numpy's learning rates."""
    return {
        "student": {f"module.{key}": tensor for key, tensor in wrapper_state("student").items()},
        "teacher": wrapper_state(),
        "motion_student": 0,
        "motion_teacher": 0,
        "optimizer": {"state": {}, "param_groups": [{"lr": np.linspace(0, 1, 3)[1], "params": [0]}]},
        "epoch": 31,
        "args": argparse.Namespace(arch="timesformer", local_crops_scale=(0.05, 0.4)),
        "dino_loss": {"center": torch.zeros(1, 40)},
        "fp16_scaler": {"scale": 65536.0},
    }
