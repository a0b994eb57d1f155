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

__all__ = ["multiply_rate", "next_to_limit", "peak_memory", "seconds_of", "seconds_of_call"]


def seconds_of_call(function: Callable[[], object]) -> float:
    """Time of one call, to the end of what it started on a GPU."""
    _finish_gpu_work()
    start = time.perf_counter()
    function()
    _finish_gpu_work()
    return time.perf_counter() - start


def seconds_of(function: Callable[[], object], repeat: int) -> float:
    """Median time of a call, after one that warms up."""
    function()
    return median(seconds_of_call(function) for _ in range(repeat))


def multiply_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """TFLOP/s of a large matrix multiplication."""
    size = 2048 if device == "cpu" else 8192
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, 15) / 1e12


def next_to_limit(
    function: Callable[[], object], tflop: float, repeat: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, float]:
    """Median time of a computation, and median share of the multiplication rate measured before and after each call."""
    function()
    rates, times = [multiply_rate(dtype, device)], []
    for _ in range(repeat):
        times.append(seconds_of_call(function))
        rates.append(multiply_rate(dtype, device))
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


def _finish_gpu_work() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
