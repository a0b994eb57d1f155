# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import pytest
import torch

from endofm_monai.utils import compute, multiplies_faster


@pytest.fixture
def machine(monkeypatch):
    """Make a CPU that takes so many milliseconds for a product, and lets another program run for a while at times."""
    clock = {"seconds": 0.0, "calls": 0}

    def make(float32: float, lower: float) -> dict[str, float]:
        def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            clock["calls"] += 1
            interrupted = 0.1 if clock["calls"] % 3 else 0.0
            clock["seconds"] += (float32 if left.dtype == torch.float32 else lower) / 1000 + interrupted
            return left

        monkeypatch.setattr(compute.torch, "mm", multiply)
        monkeypatch.setattr(compute.time, "perf_counter", lambda: clock["seconds"])
        return clock

    multiplies_faster.cache_clear()
    yield make
    multiplies_faster.cache_clear()


@pytest.mark.parametrize(
    ("lower", "found", "line"),
    [
        (1.3, True, "2 times as fast in bfloat16 as in float32: networks compute best in bfloat16."),
        (2.1, False, "1.2 times as fast in bfloat16 as in float32: networks compute best in float32."),
        (90.0, False, "0.029 times as fast in bfloat16 as in float32: networks compute best in float32."),
    ],
)
def test_a_cpu_is_asked_once_and_says_what_it_found(machine, caplog, lower, found, line):
    clock = machine(2.6, lower)
    with caplog.at_level(logging.INFO):
        assert multiplies_faster(torch.bfloat16, "cpu") is found
    assert [record.getMessage() for record in caplog.records] == [f"This CPU multiplies {line}"]
    calls = clock["calls"]
    assert multiplies_faster(torch.bfloat16, "cpu") is found
    assert clock["calls"] == calls


def test_of_a_gpu_it_is_known(machine):
    clock = machine(1.0, 1.0)
    assert multiplies_faster(torch.bfloat16, "cuda")
    assert clock["calls"] == 0
