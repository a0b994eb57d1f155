# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_active_learning.py"


def test_every_strategy_is_measured_on_the_validation_videos(tmp_path):
    spec = importlib.util.spec_from_file_location("simulate_active_learning", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    random = np.random.default_rng(0)
    items = []
    for video in range(3):
        for name in ("frames", "masks"):
            (tmp_path / name / str(video)).mkdir(parents=True)
        for index in range(4):
            mask = np.zeros((24, 40), np.uint8)
            mask[4:16, 5 * index : 5 * index + 12] = 255
            frame = mask[..., None] // 2 + random.integers(0, 60, (24, 40, 3), np.uint8)
            Image.fromarray(frame).save(tmp_path / f"frames/{video}/{index}.png")
            Image.fromarray(mask).save(tmp_path / f"masks/{video}/{index}.png")
        items.append({key: [f"{key}s/{video}/{index}.png" for index in range(4)] for key in ("frame", "mask")})
        items[-1]["image"] = items[-1].pop("frame")
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items[:2], "validation": items[2:]}))
    options = {"preset": "tiny", "patch_size": 16, "size": 32, "window": 2, "iterations": 3}
    module.simulate_active_learning(
        str(tmp_path), None, str(tmp_path / "out"), **options, seeds=2, first=1, step=2, last=3
    )
    with open(tmp_path / "out" / "active_learning.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    assert {(row["strategy"], row["frames"]) for row in rows} == {
        (strategy, frames) for strategy in ("random", "uncertainty", "k-center", "both") for frames in ("1", "3")
    }
    first = [row["dice"] for row in rows if row["seed"] == "1" and row["frames"] == "1"]
    assert len(set(first)) == 1  # all strategies begin alike
    assert Image.open(tmp_path / "out" / "active_learning.png").size == (1200, 800)
