# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from endofm_monai.networks.blocks import SpatialTemporalAdapter
from endofm_monai.networks.nets import EndoFM, FrameViT


def test_golden_numbers():
    adapter = SpatialTemporalAdapter(1, 1)
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    assert torch.equal(adapter(x), x)
    values = {
        "fc1.weight": [[2.0]],
        "fc1.bias": [0.5],
        "conv.weight": [[[[[0.5]], [[1.0]], [[-1.0]]]]],
        "conv.bias": [0.25],
        "fc2.weight": [[3.0]],
        "fc2.bias": [-1.0],
    }
    adapter.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    assert adapter(x).flatten().tolist() == [-5.25, -0.5, 29.0]


def test_is_the_convolution_that_it_holds():
    adapter = SpatialTemporalAdapter(6, 4)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    patches = torch.randn(2, 2 * 3, 5, 6)  # a grid of 2 x 3
    reduced = adapter.fc1(patches).permute(0, 3, 2, 1).unflatten(3, (2, 3))  # (B, d, T, H, W)
    expected = patches + adapter.fc2(adapter.conv(reduced).flatten(3).permute(0, 3, 2, 1))
    assert_close(adapter(patches), expected)


def test_first_step_moves_the_convolution_and_the_last_bias_alone():
    adapter = SpatialTemporalAdapter(6, 4)
    adapter(torch.randn(2, 3, 5, 6)).square().sum().backward()
    moved = {name for name, parameter in adapter.named_parameters() if parameter.grad.any()}
    assert moved == {"conv.weight", "conv.bias", "fc2.bias"}


def number(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("adapters", "expected"), [(1, 7_110_144), (2, 14_220_288)])
@pytest.mark.parametrize("network", [EndoFM, FrameViT])
def test_published_numbers_of_parameters(network, adapters, expected):
    with torch.device("meta"):
        assert number(SpatialTemporalAdapter(768, 384)) == 592_512
        backbone = network.from_preset("base", adapters=adapters)
        all_others = number(network.from_preset("base", adapters=0))
    backbone.freeze()
    trained = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    assert trained == expected == number(backbone) - all_others
