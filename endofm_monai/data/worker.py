# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import signal

__all__ = ["survive_first_sigterm"]


def survive_first_sigterm(worker_id: int) -> None:
    """Initialize a ``DataLoader`` worker so that a SIGTERM for the whole process group does not end it.

    A job scheduler or container sends SIGTERM to all processes at once. The training then wants to finish its step
    and save, for which it needs its workers; when it ends, it ends them itself.

    Args:
        worker_id: number of the worker.
    """

    def survive(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, survive)
