# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch
import torch.multiprocessing as multiprocessing

__all__ = ["run_two_processes"]


def run_two_processes(function: Callable[..., None], *args: Any, initialize: bool = True) -> None:
    """Call ``function(rank, *args)`` in two processes of a gloo group on the CPU, also where there is a GPU.

    Without ``initialize`` it has to make the group itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(_run_rank, (port, function, args, initialize), nprocs=2, start_method="fork")


def _run_rank(rank: int, port: int, function: Callable[..., None], args: tuple[Any, ...], initialize: bool) -> None:
    faulthandler.dump_traceback_later(200, exit=True)  # says where a rank hangs, before the test is given up
    torch.set_num_threads(1)
    torch.cuda.is_available = lambda: False  # ignite would take a GPU, which a forked process cannot use
    os.environ.update(  # as torchrun does
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    if initialize:
        idist.initialize("gloo")
    function(rank, *args)
    if initialize:
        idist.finalize()
