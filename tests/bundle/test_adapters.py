# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import BundleUnderTest, failing
from trial import TRIAL_INFERENCE, TRIAL_TRAINING

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.inferers import load_predictor
from endofm_monai.networks.nets import FrameViT
from endofm_monai.weights import WeightsError, initialize_backbone
from endofm_monai.weights.files import BACKBONE_HASH
from endofm_monai.weights.load import trained_state

DEPTH = {"network_def::depth": 2}  # the class token does not see the last block's adapter


@pytest.fixture(params=["classification", "segmentation", "detection"])
def bundle(request) -> BundleUnderTest:
    name = f"endofm_polyp_{request.param}"
    return BundleUnderTest(name, {**TRIAL_INFERENCE[name], **DEPTH}, {**TRIAL_TRAINING[name], **DEPTH, "epochs": 2})


@pytest.fixture
def start(bundle, trial_network, tmp_path) -> Path:
    """A backbone of the bundle's size, without adapters."""
    network = trial_network(bundle, "train", {**TRIAL_TRAINING[bundle.name], **DEPTH})
    torch.save(network.backbone.state_dict(), tmp_path / "backbone.pt")
    return tmp_path / "backbone.pt"


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        value == right[key] if isinstance(value, str) else value.equal(right[key]) for key, value in left.items()
    )


def test_adapters_and_head_alone_learn_resume_and_are_used(bundle, start, trial_datalist, tmp_path):
    data = {"datalist": trial_datalist, "backbone_weights": start, "average_decay": 0.5}
    folder, whole, parts = trial_datalist.parent, tmp_path / "whole", tmp_path / "parts"
    bundle.train(folder, whole, "adapter", **data)
    for stop in (1, 2):
        bundle.train(folder, parts, "adapter", **data, **{"train::trainer::max_epochs": stop, "resume": stop > 1})
    models = [torch.load(output / "models" / "model.pt", weights_only=True) for output in (whole, parts)]
    states = [torch.load(output / "models" / "checkpoint.pt", weights_only=True) for output in (whole, parts)]
    assert same(*models)
    for part in ("network", "average"):
        assert same(*(state[part] for state in states))
        kept = [key for key in states[0][part] if "backbone." in key]
        assert len(kept) == 2 * 6
        assert all(".adapter_pre_mlp." in key for key in kept)
    assert states[0]["network"]["backbone.blocks.0.adapter_pre_mlp.conv.weight"].any()
    assert models[0][BACKBONE_HASH] == states[0]["network"][BACKBONE_HASH]

    model = whole / "models" / "model.pt"
    bundle.evaluate(folder, model, tmp_path / "report", "adapter", datalist=trial_datalist, backbone_weights=start)
    settings = {"adapters": 1, "backbone_weights": str(start)}
    bundle.infer(folder, model, tmp_path / "out", datalist=trial_datalist, section="test", **settings)

    other = torch.load(start, weights_only=True)
    torch.save({key: value + 1 for key, value in other.items()}, tmp_path / "other.pt")
    with failing("model.pt: needs the backbone with the SHA-256", models[0][BACKBONE_HASH], kind=WeightsError):
        changed = {**settings, "backbone_weights": tmp_path / "other.pt"}
        bundle.infer(folder, model, tmp_path / "out2", datalist=trial_datalist, section="test", **changed)
    with failing("the checkpoint: needs the backbone", models[0][BACKBONE_HASH], kind=WeightsError):
        bundle.train(folder, whole, "adapter", **{**data, "backbone_weights": tmp_path / "other.pt"}, resume=True)


@pytest.mark.parametrize("bundle", ["classification"], indirect=True)
def test_a_bundle_to_share_holds_the_whole_network_that_every_door_opens(bundle, start, trial_network, tmp_path):
    network = trial_network(bundle, "train", {**bundle.training, "adapters": 1, "mode": "adapter"})
    initialize_backbone(network, start)
    torch.save(trained_state(network), tmp_path / "model.pt")
    settings = {**TRIAL_INFERENCE[bundle.name], **DEPTH, "adapters": 1, "backbone_weights": str(start)}
    predictor = load_predictor(bundle.folder, weights=str(tmp_path / "model.pt"), **settings)
    build_bundle(bundle.folder, tmp_path / "model.pt", tmp_path / "shared", formats=["pt", "ts"], **settings)
    shared = tmp_path / "shared" / bundle.name
    saved = torch.load(shared / "models" / "model.pt", weights_only=True)
    assert same(saved, network.state_dict())
    assert same(saved, predictor.network.state_dict())
    assert str(tmp_path) not in (shared / "configs" / "inference.json").read_text()
    clips = torch.randn(1, 3, 2, 32, 32)
    exported = torch.jit.load(shared / "models" / "model.ts").eval()
    torch.testing.assert_close(exported(clips), network.eval()(clips))


@pytest.mark.parametrize("bundle", ["classification"], indirect=True)
def test_rival_is_a_network_of_the_classification(bundle, trial_datalist, tmp_path):
    tiny = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    image = FrameViT.from_preset("tiny", **tiny, variant="clip", adapters=0, img_size=32)
    torch.save(image.state_dict(), tmp_path / "clip.pt")
    data = {"datalist": trial_datalist, "backbone_weights": tmp_path / "clip.pt", "epochs": 1}
    bundle.train(trial_datalist.parent, tmp_path, "st_adapter", **data)
    model = tmp_path / "models" / "model.pt"
    assert len(torch.load(model, weights_only=True)) == 2 * 6 + 2 + 1
    data.pop("epochs")
    bundle.evaluate(trial_datalist.parent, model, tmp_path / "report", "st_adapter", **data)
    bundle.infer(trial_datalist.parent, model, tmp_path / "out", "st_adapter", section="test", **data)
