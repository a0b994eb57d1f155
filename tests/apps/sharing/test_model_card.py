# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from endofm_monai.apps.sharing.model_card import fill_model_card

BUNDLES = Path(__file__).parents[3] / "bundle"
REPORTS = {
    "endofm_polyp_classification": {
        "protocol": "scores of the test section",
        "video": {"scores": {"f1": {"value": 0.9, "interval": [0.85, 0.95]}, "auc": {"value": None}}},
    },
    "endofm_polyp_detection": {"videos": 3, "scores": {"ap50": 0.5, "ap": None}, "intervals": {"ap50": [0.4, 0.6]}},
    "endofm_polyp_segmentation": {
        "clean": {"per_frame": {"dice": {"value": 0.8, "interval": [0.7, 0.875]}}},
        "published": {"dice": 0.75, "clips": [{"dice": 0.1}]},
    },
    "endofm_pretraining": {"knn": {"accuracy": 0.625}},
}
ROWS = {
    "endofm_polyp_classification": ["| video / scores / f1 | 0.900 | 0.850 to 0.950 |"],
    "endofm_polyp_detection": ["| videos | 3 |  |", "| ap50 | 0.500 | 0.400 to 0.600 |"],
    "endofm_polyp_segmentation": [
        "| clean / per_frame / dice | 0.800 | 0.700 to 0.875 |",
        "| published / dice | 0.750 |  |",
    ],
    "endofm_pretraining": ["| knn / accuracy | 0.625 |  |"],
}


@pytest.fixture
def copy(tmp_path, request) -> Path:
    folder = tmp_path / request.param
    shutil.copytree(BUNDLES / request.param, folder, ignore=shutil.ignore_patterns("models", "eval"))
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize("copy", REPORTS, indirect=True)
def test_card_tells_weights_and_results_and_keeps_the_rest(copy):
    report = copy / "report.json"
    report.write_text(json.dumps(REPORTS[copy.name]))
    before = (copy / "docs" / "model_card.md").read_text()
    after = fill_model_card(copy, "Ten videos of one clinic.", report).read_text()
    table = [
        line for line in after.splitlines() if line.startswith("|") and "SHA-256" not in line and "---" not in line
    ]
    assert table[1:][1:] == ROWS[copy.name]
    assert f"| `models/model.pt` | 7 | `{hashlib.sha256(b'weights').hexdigest()}` |" in after
    assert "Trained on: Ten videos of one clinic.\n" in after
    assert "**Not a medical device.**" in after
    for title in ("Intended use", "Data", "Protocol", "Limits"):
        section = before.partition(f"## {title}\n")[2].partition("\n## ")[0]
        assert len(section) > 50
        assert section in after


@pytest.mark.parametrize("copy", ["endofm_pretraining"], indirect=True)
def test_what_is_not_known_is_said(copy):
    text = fill_model_card(copy).read_text()
    assert "nothing is known of how well they do" in text
    assert "Trained on: not stated" in text


@pytest.mark.parametrize("copy", ["endofm_pretraining"], indirect=True)
def test_strange_report_and_card_are_named(copy):
    (copy / "report.json").write_text('{"clips": ["a"]}')
    with pytest.raises(ValueError, match=r"report.json: has no score"):
        fill_model_card(copy, results=copy / "report.json")
    (copy / "docs" / "model_card.md").write_text("# Card\n")
    with pytest.raises(ValueError, match=r"model_card.md: has no section '## Weights'"):
        fill_model_card(copy)
