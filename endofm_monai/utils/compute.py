# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Which precision pays on a device."""

import logging
import time
from functools import cache

import torch

__all__ = ["multiplies_faster"]

logger = logging.getLogger(__name__)

CLEARLY = 1.3  # far from what CPUs do: twice as fast or more in bfloat16, or half as fast and less


@cache
def multiplies_faster(dtype: torch.dtype, device: str) -> bool:
    """Whether a kind of device, "cpu" or "cuda", multiplies matrices clearly faster in ``dtype`` than in float32.

    A CPU is measured, once a process, in a fifth of a second: the fastest of many products in turn are compared, which
    other work on the machine slows down least, so that all processes find the same.
    """
    if device != "cpu":
        return True
    matrices = {kind: torch.ones(512, 512, dtype=kind) for kind in (torch.float32, dtype)}
    seconds: dict[torch.dtype, list[float]] = {kind: [] for kind in matrices}
    end = time.perf_counter() + 0.2
    with torch.autocast(device, enabled=False):
        while len(seconds[dtype]) < 3 or time.perf_counter() < end:
            for kind, matrix in matrices.items():
                start = time.perf_counter()
                torch.mm(matrix, matrix)
                seconds[kind].append(time.perf_counter() - start)
    ratio = min(seconds[torch.float32]) / min(seconds[dtype])
    name = str(dtype).removeprefix("torch.")
    chosen = name if ratio > CLEARLY else "float32"
    factor = f"{ratio:.2g} times as fast in {name} as in float32"
    logger.info(f"This CPU multiplies {factor}: networks compute best in {chosen}.")
    return chosen == name
