# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn


def recipe(name: str, shape: Any, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
    """The tensor that the golden files' recipe makes from a name."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    return torch.from_numpy((random.standard_normal(tuple(shape)) * std + mean).astype(np.float32))


def published_name(key: str) -> str:
    """The published name of a parameter: weight normalization had other names then."""
    return key.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Outputs of the published code."""
    return json.loads((Path(__file__).parent / "data" / "golden_pretraining.json").read_text())


@pytest.fixture(scope="session")
def arr() -> Any:
    """The recipe, as a fixture."""
    return recipe


@pytest.fixture(scope="session")
def fill() -> Any:
    """Give a network the weights that the recipe makes from its published parameter names."""

    def fill_network(network: nn.Module, std: float) -> nn.Module:
        state = {}
        for key, value in network.state_dict().items():
            name = published_name(key)
            owner = name.split(".")[-2] if "." in name else ""
            is_scale = name.endswith("weight_g") or (
                owner in ("norm", "norm1", "norm2", "temporal_norm1") and name.endswith("weight")
            )
            state[key] = recipe(name, value.shape, std, 1.0 if is_scale else 0.0)
        network.load_state_dict(state)
        return network.eval()

    return fill_network
