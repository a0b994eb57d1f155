# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.apps.sharing.listing import bundle_versions, check_large_files
from endofm_monai.weights import WeightsError

BUNDLE = Path(__file__).parents[3] / "bundle" / "endofm_pretraining"
CONFIG = "configs/inference.json"


def test_zip_is_complete_and_holds_the_weights(shared: Path) -> None:
    with zipfile.ZipFile(shared / "out" / "endofm_pretraining.zip") as archive:
        names = archive.namelist()
    documents = ("LICENSE", "docs/README.md", "docs/model_card.md", "docs/data_license.txt", "large_files.yml")
    for name in ("configs/metadata.json", *documents, "models/model.pt", "endofm_monai/registry.py"):
        assert f"endofm_pretraining/{name}" in names
    assert not [name for name in names if "__pycache__" in name or "/eval/" in name]
    models = shared / "out" / "endofm_pretraining" / "models"
    trained = torch.load(shared / "trained.pt", weights_only=True)
    for state in (torch.load(models / "model.pt", weights_only=True), load_file(models / "model.safetensors")):
        assert state.keys() == trained.keys()
        assert all(torch.equal(state[name], trained[name]) for name in trained)


def test_unpacked_zip_runs_on_its_own(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "out" / "endofm_pretraining.zip") as archive:
        archive.extractall(tmp_path)
    frames = tmp_path / "data" / "clip"
    frames.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((40, 48, 3), 60 * number, np.uint8)).save(frames / f"{number}.png")
    root = tmp_path / "endofm_pretraining"
    settings = {"config_file": CONFIG, "dataset_dir": str(tmp_path / "data"), "plot": False}
    script = "import endofm_monai, monai.bundle; print(endofm_monai.__file__); "
    script += f"monai.bundle.run(**{settings}, num_workers=0)"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(str(root))
    with np.load(root / "eval" / "embeddings.npz") as embeddings:
        assert embeddings["embeddings"].shape == (1, 192)


def test_same_content_gives_the_same_bytes_and_replaces_the_former(shared: Path) -> None:
    archive = shared / "out" / "endofm_pretraining.zip"
    before = archive.read_bytes()
    build_bundle(BUNDLE, shared / "trained.pt", shared / "out", preset="tiny", frame_size=32)
    assert archive.read_bytes() == before


def test_safetensors_alone_are_what_the_configs_load(shared: Path, tmp_path: Path) -> None:
    url = "https://example.org/weights/"
    data = {"weights_url": url, "trained_on": "Two made-up videos.", "preset": "tiny", "formats": "safetensors"}
    data["network_def::drop_path_rate"] = 0.0
    build_bundle(BUNDLE, shared / "trained.pt", tmp_path, **data)
    folder = tmp_path / "endofm_pretraining"
    assert [path.name for path in (folder / "models").iterdir()] == ["model.safetensors"]
    for name in (CONFIG, "configs/evaluate.json"):
        assert json.loads((folder / name).read_text())["weights"].endswith("/models/model.safetensors'")
    assert json.loads((folder / CONFIG).read_text())["network_def"]["drop_path_rate"] == 0
    (listed,) = json.loads((folder / "large_files.yml").read_text())["large_files"]
    assert listed["url"] == "https://example.org/weights/model.safetensors"
    assert check_large_files(folder) == [folder / "models" / "model.safetensors"]
    assert "Trained on: Two made-up videos." in (folder / "docs" / "model_card.md").read_text()
    assert bundle_versions(tmp_path)["endofm_pretraining"]["latest_version"] == "0.1.0"


def test_what_does_not_fit_is_refused_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", preset="small")
    with pytest.raises(KeyError, match="has no key presett"):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", presett="tiny")
    with pytest.raises(FileNotFoundError, match="inference.json: is missing"):
        build_bundle(tmp_path, shared / "trained.pt", tmp_path / "out")
    with pytest.raises(ValueError, match="with pt or safetensors among them"):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", formats="onnx", preset="tiny")
    assert not (tmp_path / "out").exists()
