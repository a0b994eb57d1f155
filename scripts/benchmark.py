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
from benchmarks.classification import Classification
from benchmarks.detection import Detection
from benchmarks.preparation import Preparation
from benchmarks.pretraining import Pretraining
from benchmarks.segmentation import Segmentation

if __name__ == "__main__":
    parts = {
        "pretraining": Pretraining,
        "classification": Classification,
        "segmentation": Segmentation,
        "detection": Detection,
        "preparation": Preparation,
    }
    fire.Fire(parts, serialize=lambda result: json.dumps(result, indent=4))
