# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure the project's parts next to the matrix multiplication or plain decoding that bounds them on this machine.

``python scripts/benchmark.py pretraining forward`` runs one part; without arguments the parts are listed.
"""

import json
import sys
from importlib import import_module
from typing import Any

from endofm_monai.utils import run_from_command_line

PARTS = ("pretraining", "classification", "segmentation", "detection", "preparation", "inference", "precision")


def load(name: str) -> Any:
    """The functions of a module of ``benchmarks``; of one that is a single part, this."""
    module = import_module(f"benchmarks.{name}")
    functions = {function: getattr(module, function) for function in module.__all__}
    return functions.get("run", functions)


if __name__ == "__main__":
    parts = {name: load(name) for name in sys.argv[1:2] if name in PARTS} or {name: load(name) for name in PARTS}
    if sys.argv[1:]:
        run_from_command_line(parts, serialize=lambda result: json.dumps(result, indent=4))
    else:
        print("\n".join(f"{name} {' | '.join(part) if isinstance(part, dict) else ''}" for name, part in parts.items()))
