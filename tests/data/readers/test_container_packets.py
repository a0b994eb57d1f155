# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from endofm_monai.data.readers.container import PacketTable, RecentCache, file_key, film_times, mean_step

NAN = float("nan")


def make_table(*, reorders: bool = True, flagged: int = -1, **columns: list[Any]) -> PacketTable:
    """A table of packets that are given column by column, in decoding order; ``"K"`` marks a keyframe."""
    count = len(next(iter(columns.values())))
    defaults = {
        "kind": ["K"] * count,
        "pts": list(range(count)),
        "hidden": [False] * count,
        "place": list(range(count)),
        "sets": [{}] * count,
    }
    rows = zip(*({**defaults, **columns}[name] for name in defaults), strict=True)
    packets = [
        SimpleNamespace(
            pts=pts,
            dts=number,
            duration=1,
            pos=place,
            size=1,
            is_keyframe=kind == "K",
            is_discard=hidden,
            is_corrupt=number == flagged,
            has_sidedata=sets.__contains__,
            get_sidedata=sets.get,
        )
        for number, (kind, pts, hidden, place, sets) in enumerate(rows)
    ]
    return PacketTable(packets, SimpleNamespace(name="h264", has_b_frames=int(reorders), extradata=b"first"))


def test_presentation_order_and_hidden_frames() -> None:
    table = make_table(kind=list("KPBB"), pts=[0, 3, 1, 2], hidden=[True, False, False, False])
    assert table.ordered
    assert table.shown.tolist() == [2, 3, 1]
    assert table.clock().tolist() == [1, 2, 3]
    table.hide(1)
    assert table.shown.tolist() == [3, 1]
    assert [table.index(position) for position in range(4)] == [None, 1, None, 0]


def test_order_is_unknown_without_times_that_follow_the_frames() -> None:
    assert not make_table(pts=[0, None, 2]).ordered
    assert not make_table(pts=[0, 2, 2]).ordered
    assert not make_table(pts=[1, 2, 3], reorders=True).ordered
    assert make_table(pts=[1, 2, 3], reorders=False).ordered


@pytest.mark.parametrize("kind", ["new_extradata", "palette"])
def test_what_a_packet_sets_for_later_ones_is_read_from_the_beginning(kind: str) -> None:
    table = make_table(kind=list("KPKP"), sets=[{}, {}, {kind: b"second"}, {}], reorders=False)
    assert table.sequential
    assert table.spans([3]) == [(0, 4)]
    again = make_table(kind=list("KPKP"), sets=[{}, {}, {"new_extradata": b"first"}, {}], reorders=False)
    assert not again.sequential
    assert again.spans([3]) == [(2, 4)]


def test_only_what_leads_to_a_wanted_frame_is_decoded() -> None:
    every_frame_alone = make_table(kind=list("KKKKKK"), reorders=False)
    assert every_frame_alone.spans([1, 4]) == [(1, 2), (4, 5)]
    assert every_frame_alone.spans([4, 1, 2]) == [(1, 3), (4, 5)]
    groups = make_table(kind=list("KPPKPPKPP"), reorders=False)
    assert groups.spans([1]) == [(0, 2)]
    assert groups.spans([1, 8]) == [(0, 2), (6, 9)]
    assert groups.spans([2, 4]) == [(0, 5)]


def test_leading_frames_of_an_open_group_need_the_group_before() -> None:
    #                                             0  1  2  3  4  5  6  7
    table = make_table(kind=list("KPBKBBPB"), pts=[0, 2, 1, 5, 3, 4, 7, 6])
    assert table.spans([3]) == [(3, 4)]
    assert table.spans([6]) == [(3, 7)]
    assert table.spans([4]) == [(0, 5)]
    assert table.spans([3, 5]) == [(0, 6)]


def test_flagged_packets_are_noted() -> None:
    assert make_table(pts=[0, 1, 2], reorders=False, flagged=2).flagged == {2}


def test_packets_are_recognized_unless_they_look_alike() -> None:
    table = make_table(place=[10, 20, 20])
    assert [table.position(SimpleNamespace(pos=pos, size=1)) for pos in (10, 20, 30)] == [0, None, None]


@pytest.mark.parametrize(
    ("clock", "times"),
    [
        ([], []),
        ([7.0], [0]),
        ([NAN, NAN, NAN], [0, 0.5, 1]),
        ([5.0, 6.0, 7.0, 9.0], [0, 1, 2, 4]),
        ([NAN, 1.0, NAN, 3.0, NAN], [0, 1, 2, 3, 4]),
        ([0.0, 0.0, 2.0, 2.0, 4.0, 4.0], [0, 1, 2, 3, 4, 5]),
        ([10.0, 11.0, 12.0, 0.5, 1.5, 2.5], [0, 1, 2, 3, 4, 5]),
        ([0.0, 1.0, 2.0, 3.0, 99.0, 100.0, *range(101, 110)], [*range(15)]),
        ([0.0, 0.1, 5.0, 5.1, 9.0], [0, 0.1, 5, 5.1, 9]),
    ],
    ids=["none", "one", "unknown", "variable", "partly", "doubled", "restarted", "paused", "often still"],
)
def test_times_of_a_film(clock: list[float], times: list[float]) -> None:
    np.testing.assert_allclose(film_times(np.array(clock, np.float64), step=0.5), times, atol=1e-9)


def test_mean_step_of_regular_frames_leaves_gaps_out() -> None:
    times = np.delete(np.arange(100) / 25, range(40, 52))
    assert mean_step(times, tail=0.04) == pytest.approx(0.04)
    variable = np.cumsum([0, *[0.1] * 10, *[0.03] * 10])
    assert mean_step(variable, tail=0.03) == pytest.approx(1.33 / 21)
    assert mean_step(np.zeros(1), tail=0.04) == 0.04


def test_what_was_not_used_for_the_longest_time_goes() -> None:
    cache: RecentCache[str] = RecentCache(limit=10)
    for key in "abc":
        cache.put(key, key.upper(), 3)
    assert cache.get("a") == "A"
    cache.put("d", "D", 3)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    cache.put("e", "E", 10)
    assert [cache.get(key) for key in "abcde"] == [None, None, None, None, "E"]


def test_a_value_is_replaced_and_one_that_is_too_large_is_not_kept() -> None:
    cache: RecentCache[int] = RecentCache(limit=10)
    for size in (9, 2, 6):
        cache.put("a", size, size)
    cache.put("b", 0, 4)
    assert (cache.get("a"), cache.get("b")) == (6, 0)
    cache.put("c", 0, 11)
    assert (cache.get("a"), cache.get("c")) == (6, None)


def test_a_full_cache_of_many_files_takes_no_longer() -> None:
    cache: RecentCache[int] = RecentCache(limit=20_000)
    start = time.perf_counter()
    for key in range(40_000):
        cache.put(key, key, 1)
    assert time.perf_counter() - start < 5  # it took 20 s and more to add up all sizes for each
    assert (cache.get(19_999), cache.get(20_000)) == (None, 20_000)


def test_a_file_that_changes_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    key = file_key(str(path))
    assert file_key(str(path)) == key
    os.utime(path, ns=(0, 1))
    moved = file_key(str(path))
    path.write_bytes(b"12")
    os.utime(path, ns=(0, 1))
    assert len({key, moved, file_key(str(path))}) == 3
    with pytest.raises(FileNotFoundError):
        file_key(str(tmp_path / "b"))
