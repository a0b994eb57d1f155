# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The same work in processes and clusters."""

from __future__ import annotations

import pytest
from small_sets import content, prepare


def test_processes_and_a_dask_cluster_give_the_same(videos, tmp_path):
    options = {"mode": "encode", "workers": 2}
    alone = prepare(videos, tmp_path / "alone", mode="encode")
    prepare(videos, tmp_path / "processes", **options)
    assert content(tmp_path / "processes") == content(tmp_path / "alone")
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        prepare(videos, tmp_path / "cluster", backend="dask", scheduler=cluster.scheduler_address, **options)
    assert content(tmp_path / "cluster") == content(tmp_path / "alone")
    assert alone["totals"]["videos"] == 6


@pytest.mark.parametrize("workers", [0, "two", 1.5])
def test_a_number_of_processes_that_is_none_is_named(videos, tmp_path, workers):
    with pytest.raises(ValueError, match=rf"^workers: expected the number of processes, .* found {workers!r}$"):
        prepare(videos, tmp_path / "output", workers=workers)
