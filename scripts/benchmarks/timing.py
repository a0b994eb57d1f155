# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


"""Times as medians, and as shares of what the same machine can do at best in the same minutes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

__all__ = ["multiply_rate", "next_to_limit", "peak_memory", "seconds_of"]


def seconds_of(function: Callable[[], object], repeat: int) -> float:
    """Median time of a call, after one that warms up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def multiply_rate(dtype: torch.dtype) -> float:
    """TFLOP/s of a large matrix multiplication."""
    size = 2048
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    return 2 * size**3 / seconds_of(lambda: left @ right, 15) / 1e12


def next_to_limit(
    function: Callable[[], object], tflop: float, repeat: int, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """Median time of a computation, and median share of the multiplication rate measured before and after each call."""
    function()
    rates, times = [multiply_rate(dtype)], []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
        rates.append(multiply_rate(dtype))
    shares = [tflop / seconds / ((rates[i] + rates[i + 1]) / 2) for i, seconds in enumerate(times)]
    return {"seconds": median(times), "multiply_tflops": median(rates), "share_of_multiply_rate": median(shares)}


def peak_memory() -> float:
    """Peak memory of this process so far, in GiB.

    Raises:
        RuntimeError: on a system without ``/proc``.
    """
    if sys.platform != "linux":
        raise RuntimeError("Peak memory is read from /proc, which only Linux has.")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) / 2**20
