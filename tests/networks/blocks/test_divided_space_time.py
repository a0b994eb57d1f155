# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from endofm_monai.networks.blocks import SpatialTemporalAdapter
from endofm_monai.networks.blocks.divided_space_time import SelfAttention, resample_table
from endofm_monai.networks.nets import EndoFM, FrameViT


def test_time_takes_the_entries_of_nearest_interpolation():
    for size in (1, 3, 8, 14):
        table = torch.randn(1, size, 2)
        for frames in range(1, 70):
            expected = F.interpolate(table.transpose(1, 2), size=[frames], mode="nearest").transpose(1, 2)
            assert torch.equal(resample_table(table, (size, 1), (frames, 1)), expected)


def test_space_takes_the_entries_of_nearest_interpolation():
    table = torch.randn(1, 14 * 10, 3)
    grid = table.transpose(1, 2).reshape(1, 3, 14, 10)
    for size in ((14, 10), (6, 8), (30, 40), (1, 7)):
        expected = F.interpolate(grid, size=list(size), mode="nearest").flatten(2).transpose(1, 2)
        assert torch.equal(resample_table(table, (14, 10), size), expected)


def attend(attention: SelfAttention, tokens: torch.Tensor) -> torch.Tensor:
    attended = scaled_dot_product_attention(*attention.project(tokens))
    return attention.proj(attended.transpose(1, 2).reshape(tokens.shape))


def test_a_token_alone_gets_what_attention_gives_it_with_all_gradients():
    torch.manual_seed(0)
    attention = SelfAttention(32, 4).double()
    results = []
    for function in (attention, lambda tokens: attend(attention, tokens)):
        tokens = torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        attention.zero_grad()
        output = function(tokens)
        output.square().sum().backward()
        results.append([output, tokens.grad, *(parameter.grad.clone() for parameter in attention.parameters())])
    assert_close(*results)
    assert not results[0][2][:64].any()  # queries and keys learn nothing


def test_tokens_attend_to_each_other():
    attention = SelfAttention(32, 4)
    tokens = torch.randn(2, 3, 32)
    assert_close(attention(tokens), attend(attention, tokens))
    assert_close(attention(tokens, first_only=True), attend(attention, tokens)[:, :1])
    assert not torch.allclose(attention(tokens)[:, :1], attention(tokens[:, :1]), atol=1e-3)


def test_attention_learns_in_bfloat16_what_it_learns_in_float32():
    """With gradients a CPU takes plain products in bfloat16."""
    torch.manual_seed(0)
    attention = SelfAttention(64, 4)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        tokens = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        attention.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            output = attention(tokens)
        output.float().square().sum().backward()
        results.append([output.float(), tokens.grad, attention.qkv.weight.grad.clone()])
    for exact, rounded in zip(*results, strict=True):
        assert (exact - rounded).norm() < 0.02 * exact.norm()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_close(attention(tokens), results[1][0].bfloat16(), atol=0.02, rtol=0.02)


def test_golden_numbers_of_an_adapter():
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


def test_an_adapter_is_the_convolution_that_it_holds():
    adapter = SpatialTemporalAdapter(6, 4)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    patches = torch.randn(2, 2 * 3, 5, 6)  # a grid of 2 x 3
    reduced = adapter.fc1(patches).permute(0, 3, 2, 1).unflatten(3, (2, 3))  # (B, d, T, H, W)
    expected = patches + adapter.fc2(adapter.conv(reduced).flatten(3).permute(0, 3, 2, 1))
    assert_close(adapter(patches), expected)


def test_the_first_step_of_an_adapter_moves_the_convolution_and_the_last_bias_alone():
    adapter = SpatialTemporalAdapter(6, 4)
    adapter(torch.randn(2, 3, 5, 6)).square().sum().backward()
    moved = {name for name, parameter in adapter.named_parameters() if parameter.grad.any()}
    assert moved == {"conv.weight", "conv.bias", "fc2.bias"}


def number(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("adapters", "expected"), [(1, 7_110_144), (2, 14_220_288)])
@pytest.mark.parametrize("network", [EndoFM, FrameViT])
def test_published_numbers_of_adapters_parameters(network, adapters, expected):
    with torch.device("meta"):
        assert number(SpatialTemporalAdapter(768, 384)) == 592_512
        backbone = network.from_preset("base", adapters=adapters)
        all_others = number(network.from_preset("base", adapters=0))
    backbone.freeze()
    trained = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    assert trained == expected == number(backbone) - all_others
