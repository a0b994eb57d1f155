# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import pytest

from endofm_monai.data.readers.packets import RecentCache, file_key


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
