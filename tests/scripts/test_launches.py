# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark, imported as the script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from benchmarks import launches

    return launches


@pytest.fixture
def launches(benchmark):
    """What counts launches."""
    return benchmark.launches


def test_a_step_launches_few_kernels_and_hardly_waits(launches):
    found = launches()
    assert found["kernels"]["all"] <= 1700
    assert found["waits"] == {"all": 2, "log": 2}  # the loss is finite; the numbers of the log
    assert launches(depth=1, small=True)["waits"] == found["waits"]
    once = {phase: found["kernels"][phase] for phase in ("loss", "clipping", "optimizer", "EMA")}
    deeper = launches(depth=13)["kernels"]
    assert {phase: deeper[phase] for phase in once} == once
    assert deeper["all"] - found["kernels"]["all"] <= 100  # of a block


def test_views_of_a_batch_are_made_by_few_kernels(benchmark):
    four, eight = (benchmark.augmentation(clips)["joined"] for clips in (4, 8))
    assert eight - four <= 4 * 10 * 3  # the crop of a view: as numbers with a point, resized
    assert four <= 4 * 10 * 3 + 60


def test_a_compiled_step_is_two_graphs_whatever_schedules_say(launches):
    """The networks, the loss, and the loss again once its temperature has changed; none has a break."""
    assert launches(depth=1, backend="eager") == {"graphs": 3, "later_graphs": 0, "breaks": 0, "kernels": []}


def test_a_step_that_recomputes_selectively_needs_less_memory(benchmark):
    plain, selective, whole = (
        benchmark.allocation(2, checkpointing, preset="mini") for checkpointing in (False, "selective", True)
    )
    assert whole < selective < 0.85 * plain
