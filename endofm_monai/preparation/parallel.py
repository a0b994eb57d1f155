# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

__all__ = ["run_parallel"]

Result = TypeVar("Result")


def run_parallel(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    workers: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
    description: str = "",
    finished: int = 0,
) -> Iterator[Result]:
    """Call a function with many arguments, in processes on this machine or in a cluster, and show the time left.

    Args:
        function: the function, which processes can import.
        arguments: the arguments of each call.
        workers: number of processes on this machine; -1 for one a processor core. A cluster decides itself.
        backend: joblib's: ``"loky"`` for processes on this machine, ``"dask"`` or ``"ray"`` for a cluster, whose
            package has to be installed and whose machines need the same paths and this package.
        scheduler: address of the cluster, as ``tcp://host:8786`` for Dask; by default one is started on this machine.
        description: stands before the progress bar.
        finished: number of calls that an earlier run has done, for the progress bar.

    Yields:
        the results, as they come.
    """
    with ExitStack() as stack:
        if backend == "dask":
            from dask.distributed import Client, LocalCluster

            if scheduler is None:
                cores = None if workers < 0 else workers
                local = LocalCluster(n_workers=cores, threads_per_worker=1, dashboard_address=None)
                scheduler = stack.enter_context(local).scheduler_address
            stack.enter_context(Client(scheduler))
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(address=scheduler, ignore_reinit_error=True)
            register_ray()
        stack.enter_context(parallel_config(backend, n_jobs=workers))
        calls = (delayed(function)(*each) for each in arguments)
        if backend == "ray":  # whose results come all at once in the end: joblib itself shows the time left
            yield from Parallel(verbose=5)(calls)
            return
        results = Parallel(return_as="generator_unordered")(calls)
        yield from tqdm(results, description, total=finished + len(arguments), initial=finished, unit="video")
