# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.blocks import ProjectionHead

SIZES = {"in_dim": 48, "num_prototypes": 40, "hidden_dim": 32, "bottleneck_dim": 16}


@torch.no_grad()
def test_logits_equal_the_published_code(golden, arr, fill):
    head = fill(ProjectionHead(**SIZES), golden["head"]["cfg"]["std"])
    expected = torch.tensor(golden["head"]["out"]).reshape(3, 40)
    torch.testing.assert_close(head(arr("head_in", (3, 48))), expected, atol=1e-5, rtol=0)


def test_published_size():
    with torch.device("meta"):
        head = ProjectionHead(768)
    assert sum(parameter.numel() for parameter in head.parameters()) == 23_138_560
    frozen = [parameter.numel() for parameter in head.parameters() if not parameter.requires_grad]
    assert frozen == [65_536]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_are_cosines_in_float32(dtype):
    head = ProjectionHead(**SIZES)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = head(torch.randn(64, 48) * 100)
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= 1 + 1e-6
    norms = head.last_layer.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(40))
