# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["RecentCache", "file_key"]

Value = TypeVar("Value")


class RecentCache(Generic[Value]):
    """Keeps what was used most recently, up to a total size; for one process, and safe with threads.

    Args:
        limit: the total size, in any unit. What is larger on its own is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[object, tuple[Value, int]] = OrderedDict()
        self._size = 0
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)  # another thread may hold it while a worker is forked

    def _renew_lock(self) -> None:
        self._lock = Lock()

    def get(self, key: object) -> Value | None:
        """Give what is kept under a key; ``None`` where there is nothing."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: object, value: Value, size: int) -> None:
        """Keep a value, and let those go that were not used for the longest time."""
        if size > self.limit:
            return
        with self._lock:
            self._size += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while self._size > self.limit:
                self._size -= self._entries.popitem(last=False)[1][1]


def file_key(path: str) -> tuple[str, int, int]:
    """Give what tells one state of a file from another: its path, size and time of change.

    Raises:
        OSError: when there is no such file.
    """
    state = os.stat(path)
    return os.path.abspath(path), state.st_size, state.st_mtime_ns
