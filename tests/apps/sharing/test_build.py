# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, verify_net_in_out
from safetensors.torch import load_file

from endofm_monai.apps.sharing.build import build_bundle, fill_model_card
from endofm_monai.apps.sharing.publish import bundle_versions, check_large_files
from endofm_monai.weights import WeightsError

BUNDLES = Path(__file__).parents[3] / "bundle"
BUNDLE = BUNDLES / "endofm_pretraining"
CONFIG = "configs/inference.json"
REPORTS = {
    "endofm_polyp_classification": {
        "protocol": "scores of the test section",
        "video": {"scores": {"f1": {"value": 0.9, "interval": [0.85, 0.95]}, "auc": {"value": None}}},
        "clip": {"recall": {"value": 0.5, "interval": [None, None]}},
    },
    "endofm_polyp_detection": {"videos": 3, "scores": {"ap50": 0.5, "ap": None}, "intervals": {"ap50": [0.4, 0.6]}},
    "endofm_polyp_segmentation": {
        "clean": {"per_frame": {"dice": {"value": 0.8, "interval": [0.7, 0.875]}}},
        "published": {"dice": 0.75, "clips": [{"dice": 0.1}]},
    },
    "endofm_pretraining": {"knn": {"accuracy": 0.625}},
}
ROWS = {
    "endofm_polyp_classification": [
        "| video / scores / f1 | 0.900 | 0.850 to 0.950 |",
        "| clip / recall | 0.500 |  |",
    ],
    "endofm_polyp_detection": ["| videos | 3 |  |", "| ap50 | 0.500 | 0.400 to 0.600 |"],
    "endofm_polyp_segmentation": [
        "| clean / per_frame / dice | 0.800 | 0.700 to 0.875 |",
        "| published / dice | 0.750 |  |",
    ],
    "endofm_pretraining": ["| knn / accuracy | 0.625 |  |"],
}


def test_zip_is_complete_and_holds_the_weights(shared: Path) -> None:
    with zipfile.ZipFile(shared / "out" / "endofm_pretraining.zip") as archive:
        names = archive.namelist()
    documents = ("LICENSE", "docs/README.md", "docs/model_card.md", "docs/data_license.txt", "large_files.yml")
    for name in ("configs/metadata.json", *documents, "models/model.pt", "endofm_monai/__init__.py"):
        assert f"endofm_pretraining/{name}" in names
    assert not [name for name in names if "__pycache__" in name or "/eval/" in name]
    models = shared / "out" / "endofm_pretraining" / "models"
    trained = torch.load(shared / "trained.pt", weights_only=True)
    for state in (torch.load(models / "model.pt", weights_only=True), load_file(models / "model.safetensors")):
        assert state.keys() == trained.keys()
        assert all(torch.equal(state[name], trained[name]) for name in trained)


def test_same_content_gives_the_same_bytes_and_replaces_the_former(shared: Path, settings: dict[str, Any]) -> None:
    archive = shared / "out" / "endofm_pretraining.zip"
    before = archive.read_bytes()
    build_bundle(BUNDLE, shared / "trained.pt", shared / "out", **settings)
    assert archive.read_bytes() == before


def test_safetensors_alone_are_what_the_configs_load(shared: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    url = "https://example.org/weights/"
    data = {"weights_url": url, "trained_on": "Two made-up videos.", **settings, "formats": "safetensors"}
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


SMALL = {"network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # settings, and what the metadata say then
    "endofm_pretraining": (
        {**SMALL, "num_frames": 4, "frame_size": 64},
        {"clip": [4, 64, 64], "num_channels": 16, "spatial_shape": [], "channel_def": {}},
    ),
    "endofm_polyp_classification": (
        {**SMALL, "class_names": ["clean", "polyp", "bleeding"], "num_frames": 2, "frame_size": 48},
        {
            **{"clip": [2, 48, 48], "num_channels": 3, "spatial_shape": []},
            "channel_def": {"0": "clean", "1": "polyp", "2": "bleeding"},
        },
    ),
    "endofm_polyp_segmentation": (
        {**SMALL, "decoder": "simple", "num_classes": 3, "window": 2, "frame_size": 32},
        {
            **{"clip": [2, 32, 32], "num_channels": 3, "spatial_shape": [2, 32, 32]},
            "channel_def": {"0": "background", "1": "polyp", "2": "class 2"},
        },
    ),
    "endofm_polyp_detection": (
        {**SMALL, "class_names": "polyp", "frame_size": [64, 96]},
        {
            **{"clip": [3, 64, 96], "num_channels": 14, "spatial_shape": [129]},
            "channel_def": {"0": "background", "1": "polyp"},
        },
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_metadata_tell_of_the_network_that_is_shared(name: str, tmp_path: Path) -> None:
    settings, expected = OTHERS[name]
    parser = ConfigParser({**json.loads((BUNDLES / name / CONFIG).read_text())})
    parser.update(settings)
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "trained.pt")
    build_bundle(BUNDLES / name, tmp_path / "trained.pt", tmp_path, **settings)
    metadata = tmp_path / name / "configs" / "metadata.json"
    data_format = json.loads(metadata.read_text())["network_data_format"]
    clip, pred = data_format["inputs"]["image"]["spatial_shape"], data_format["outputs"]["pred"]
    assert {"clip": clip, **{key: pred[key] for key in expected if key != "clip"}} == expected
    verify_net_in_out("network_def", str(metadata), str(tmp_path / name / CONFIG), device="cpu")
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / name / "models").iterdir()} == {0o666 & ~umask}
    for published in (BUNDLES / name / "configs").glob("reference*.json"):
        shared = (tmp_path / name / "configs" / published.name).read_text()
        assert json.loads(shared) == json.loads(published.read_text())
    export = json.loads((tmp_path / name / "configs" / "onnx_export.json").read_text())
    assert export["input_shape"] == [2, 3, *expected["clip"]]


def test_what_fails_the_checks_of_the_zoo_is_not_built(shared: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    bundle = tmp_path / "endofm_pretraining"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("models", "eval"))
    metadata = bundle / "configs" / "metadata.json"
    before, _, after = metadata.read_text().rpartition('"dtype": "float32"')
    metadata.write_text(f'{before}"dtype": "float64"{after}')
    with pytest.raises(ValueError, match="dtype"):
        build_bundle(bundle, shared / "trained.pt", tmp_path / "out", **settings)
    metadata.write_text(metadata.read_text().replace('"monai_version"', '"monay_version"'))
    with pytest.raises(ValueError, match="monai_version"):
        build_bundle(bundle, shared / "trained.pt", tmp_path / "out", **settings)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", OTHERS)
def test_packages_are_those_that_every_supported_python_has(name: str) -> None:
    tested = (BUNDLES.parent / "scripts" / "constraints" / "python3.10.txt").read_text().splitlines()
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    needed = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    needed |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    assert [
        f"{package}=={version}" for package, version in needed.items() if f"{package}=={version}" not in tested
    ] == []


def test_what_does_not_fit_is_refused_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", preset="small")
    with pytest.raises(ValueError, match=r"inference.json: has no key `presett`\. Did you mean `preset`\?"):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", presett="tiny")
    with pytest.raises(FileNotFoundError, match="inference.json: is missing"):
        build_bundle(tmp_path, shared / "trained.pt", tmp_path / "out")
    with pytest.raises(ValueError, match="with pt or safetensors among them"):
        build_bundle(BUNDLE, shared / "trained.pt", tmp_path / "out", formats="onnx", preset="tiny")
    with pytest.raises(FileNotFoundError, match="terms.txt"):
        build_bundle(
            BUNDLE, shared / "trained.pt", tmp_path / "out", data_license=tmp_path / "terms.txt", preset="tiny"
        )
    assert not (tmp_path / "out").exists()
    source = tmp_path / "bundles" / BUNDLE.name
    source.mkdir(parents=True)
    (tmp_path / "link").symlink_to(source.parent)
    with pytest.raises(ValueError, match="link: .*, which would be replaced, is or holds the bundle"):
        build_bundle(source, shared / "trained.pt", tmp_path / "link")
    assert source.is_dir()


def test_a_bundle_may_be_a_link_to_what_is_read_only(shared: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    link = tmp_path / "endofm_pretraining"
    link.symlink_to(shutil.copytree(BUNDLE, tmp_path / "3f7a"))
    for path in (link, *link.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    archive = build_bundle(link, shared / "trained.pt", tmp_path / "out", **settings)
    assert archive.name == "endofm_pretraining.zip"
    made = archive.with_suffix("")
    assert [path for path in (made, *made.rglob("*")) if not path.stat().st_mode & 0o200] == []


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
    after = fill_model_card(copy, "Videos 1..10 of one clinic.", report).read_text()
    table = [
        line for line in after.splitlines() if line.startswith("|") and "SHA-256" not in line and "---" not in line
    ]
    assert table[1:][1:] == ROWS[copy.name]
    assert f"| `models/model.pt` | 7 | `{hashlib.sha256(b'weights').hexdigest()}` |" in after
    assert "Trained on: Videos 1..10 of one clinic.\n" in after
    assert "Kvasir" not in after  # on which the weights that come with the project were trained
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
