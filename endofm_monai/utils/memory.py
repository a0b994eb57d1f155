# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_SIGNS = ("allocate memory", "out of memory", "ALLOC_FAILED")  # torch has no class of its own for the CPU and cuBLAS


@contextmanager
def name_memory_errors(what: Callable[[], str], advice: str) -> Iterator[None]:
    """Turn every way of having too little memory into a ``MemoryError`` that names what was being done.

    Args:
        what: says it, when it happens.
        advice: what to change.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and not any(sign in str(error) for sign in _SIGNS):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MemoryError(f"{what()}: there is not enough memory; {advice} ({reason}).") from error
