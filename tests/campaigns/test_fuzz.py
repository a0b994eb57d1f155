# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")


def test_damaged_files_are_read_or_refused_by_name(tmp_path):
    text = fuzz.fuzz(seconds=30, seed=0, output=str(tmp_path))
    report = json.loads((tmp_path / "verdicts.json").read_text())
    assert report["bad"] == []
    assert report["inputs"] >= 50
    assert f"{report['inputs']} inputs, 0 bad" in text


@pytest.mark.parametrize(
    ("act", "verdict"),
    [
        (lambda path: {}["x"], "bad exception: KeyError"),
        (lambda path: int("x"), "bad message: ValueError"),
        (lambda path: bytearray(8 << 30), "bad exception: MemoryError"),
        (lambda path: os._exit(7), "bad end: exit code 7"),
        (lambda path: time.sleep(9), "bad time"),
    ],
)
def test_what_is_bad_is_found_and_kept(monkeypatch, tmp_path, act, verdict):
    monkeypatch.setitem(fuzz.DOORS, "masks", (fuzz.make_masks, act))
    if verdict == "bad time":
        monkeypatch.setattr(fuzz, "SECONDS", 1)
    with pytest.raises(SystemExit, match="1 bad|[2-9] bad|[0-9][0-9] bad"):
        fuzz.fuzz(seconds=0.2, doors=["masks"], output=str(tmp_path))
    first = json.loads((tmp_path / "verdicts.json").read_text())["bad"][0]
    assert first["verdict"].startswith(verdict)
    assert (tmp_path / first["file"]).exists()


def test_the_same_seed_damages_in_the_same_way():
    content = json.dumps({"image": "a.png", "label": 1}).encode()
    damaged = [[fuzz.mutate(content, random.Random(seed), True) for seed in range(50)] for _ in range(2)]
    assert damaged[0] == damaged[1]
    assert len(set(damaged[0])) > 25
