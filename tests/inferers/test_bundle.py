# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bundles import BundleUnderTest
from safetensors.torch import save_file

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.inferers import Bundle, load_predictor
from endofm_monai.weights import WeightsError

NAME = "endofm_polyp_segmentation"
TINY = {
    **{"preset": "tiny", "network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2},
    **{"decoder": "simple", "network_def::temporal": False, "frame_size": 32, "window": 1, "stride": 1},
}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A bundle as the project has it, with a tiny released network."""
    folder = tmp_path / NAME
    source = BundleUnderTest(NAME)
    shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("models", "large_files.yml"))
    (folder / "configs" / "released.json").write_text(json.dumps(TINY))
    (folder / "models").mkdir()
    network = source.workflow("infer", "inference", **TINY, device="cpu").parser.get_parsed_content("network_def")
    save_file(network.state_dict(), folder / "models" / "model.safetensors")
    return folder


def test_released_weights_bring_their_settings(released):
    predictor = load_predictor(released)
    assert predictor.network.backbone.embed_dim == 16
    assert not predictor.network.backbone.temporal
    assert load_predictor(released, stride=1, window=2).window == 2


def test_ones_own_weights_go_first_and_with_ones_own_settings(released):
    torch.save({"a": torch.zeros(1)}, released / "models" / "model.pt")
    own = Bundle(released, device="cpu", preset="tiny", decoder="simple")
    assert own.settings == {}
    assert own.weights.name == "model.pt"
    assert own.get("network").backbone.embed_dim == 192


def test_what_was_trained_from_them_keeps_their_settings(released):
    (released / "models" / "monai_label").mkdir()
    shutil.move(released / "models" / "model.safetensors", released / "models" / "monai_label" / "model.pt")
    shutil.copy(released / "models" / "monai_label" / "model.pt", released / "models" / "model.safetensors")
    bundle = Bundle(released)
    assert bundle.weights == bundle.trained_weights
    assert bundle.settings == TINY


def test_a_shared_bundle_of_them_stands_alone(released, tmp_path):
    build_bundle(released, released / "models" / "model.safetensors", tmp_path / "out", formats="safetensors")
    shared = tmp_path / "out" / NAME
    assert not (shared / "configs" / "released.json").exists()
    predictor, before = load_predictor(shared), load_predictor(released)
    for one, other in zip(predictor.network.parameters(), before.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_settings_that_do_not_fit_the_released_weights_are_named(released):
    with pytest.raises(WeightsError, match=r"model.safetensors .*embed_dim 16.*the network has embed_dim 32"):
        load_predictor(released, **{"network_def::embed_dim": 32})
