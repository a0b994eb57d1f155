# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from endofm_monai.networks.blocks.divided_space_time import SelfAttention


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
    assert not torch.allclose(attention(tokens)[:, :1], attention(tokens[:, :1]), atol=1e-3)
