# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


"""Measure the project's parts, as ratios to limits of the same machine.

Everything is measured next to the matrix multiplication or the plain decoding that bounds it, since absolute times of
shared machines say little. ``python scripts/benchmark.py pretraining forward`` runs one part; without arguments the
parts are listed.
"""

from __future__ import annotations

import json

import fire
from benchmarks.pretraining import Pretraining

if __name__ == "__main__":
    fire.Fire({"pretraining": Pretraining}, serialize=lambda result: json.dumps(result, indent=4))
