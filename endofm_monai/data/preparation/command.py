# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import fire

__all__ = ["run_from_command_line"]


def run_from_command_line(function: Callable[..., Any]) -> None:
    """Make a function the command of a script.

    What is wrong with files or arguments ends it with one line instead of a traceback.

    Args:
        function: the function, whose arguments become the command's.
    """
    try:
        fire.Fire(function)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
