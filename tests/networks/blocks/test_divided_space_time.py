# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from endofm_monai.networks.blocks.divided_space_time import SelfAttention, resample_table


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
