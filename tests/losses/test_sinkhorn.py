# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.losses.sinkhorn import enqueue, sinkhorn


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[0.1, 0], [0, 0.1]], [[0.880797, 0.119203], [0.119203, 0.880797]]),
        ([[0.1, 0], [0.1, 0]], [[0.5, 0.5], [0.5, 0.5]]),
        ([[0.2, 0], [0.1, 0]], [[0.727212, 0.272788], [0.265129, 0.734871]]),
        ([[0.2, 0], [0.1, 0], [0, 0]], [[0.863962, 0.136038], [0.462221, 0.537779], [0.1042, 0.8958]]),
    ],
)
def test_gives_the_values_of_its_published_form(logits, expected):
    targets = sinkhorn(torch.tensor(logits), temperature=0.05)
    torch.testing.assert_close(targets, torch.tensor(expected), atol=1e-5, rtol=0)


def test_uses_all_prototypes_alike_and_takes_logits_of_any_size():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    targets = sinkhorn(logits, 0.5, iterations=50)
    torch.testing.assert_close(targets.sum(dim=0), torch.full((8,), 8.0))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    huge = sinkhorn((logits * 1e4).half(), 0.04)  # overflows as an exponential
    assert huge.isfinite().all()
    torch.testing.assert_close(huge.sum(dim=1), torch.ones(64))


def test_earlier_rows_balance_the_targets_and_have_none():
    rows = torch.tensor([[0.2, 0.0], [0.1, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(sinkhorn(rows[:1], 0.05, rows[1:]), sinkhorn(rows, 0.05)[:1])
    assert sinkhorn(rows, 0.05, rows[:0]).equal(sinkhorn(rows, 0.05))
    not_held = torch.tensor([[1e30, -1e30], [0.0, 0.0]])
    filling = sinkhorn(rows[:1], 0.05, torch.cat([rows[1:], not_held]), held=torch.tensor(2))
    torch.testing.assert_close(filling, sinkhorn(rows, 0.05)[:1])


def test_the_oldest_rows_fall_out_of_a_queue():
    queue, count = torch.full((3, 1), -1.0), torch.tensor(0)
    for rows, expected, held in [([1], [1, -1, -1], 1), ([2, 3], [2, 3, 1], 3), ([4], [4, 2, 3], 3)]:
        enqueue(queue, count, torch.tensor(rows).float().unsqueeze(1))
        assert queue.flatten().tolist() == expected
        assert int(count) == held
