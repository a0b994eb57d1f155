# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from endofm_monai.networks import freeze_backbone
from endofm_monai.networks.nets import EndoFM, EndoFMClassifier, EndoFMSegmenter
from endofm_monai.weights import WeightsError, load_published
from endofm_monai.weights.__main__ import compact, convert, inspect, merge
from endofm_monai.weights.files import BACKBONE_HASH
from endofm_monai.weights.load import backbone_sha256, load_trained_state, trained_state

TINY = {"img_size": 64, "num_frames": 4, "embed_dim": 48, "depth": 3, "num_heads": 4}


def build(backbone: dict[str, torch.Tensor] | None = None, mode: str = "adapter", **sizes: int) -> EndoFMClassifier:
    """A classifier with adapters, on a backbone."""
    network = EndoFMClassifier.from_preset("tiny", mode=mode, **{**TINY, "adapters": 1, **sizes}).eval()
    network.backbone.load_state_dict(backbone or {}, strict=False)
    return network


@pytest.fixture
def trained(backbone_state, tmp_path) -> tuple[EndoFMClassifier, Path, Path]:
    """A network whose adapters have learned, its file, and the one of its backbone."""
    torch.save(backbone_state(), tmp_path / "endo_fm.pth")
    network = build(backbone_state())
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(trained_state(network), tmp_path / "model.pt")
    return network, tmp_path / "model.pt", tmp_path / "endo_fm.pth"


@torch.no_grad()
def test_file_holds_adapters_and_head_and_loads_onto_its_backbone(trained, arr):
    network, file, backbone = trained
    saved = torch.load(file, weights_only=True)
    assert len(saved) == 3 * 6 + 2 + 1
    assert all(".adapter_pre_mlp." in key or key.startswith("head.") or key == BACKBONE_HASH for key in saved)
    clips = arr("clips", (1, 3, 4, 64, 64))
    for other, arguments in (
        (build(), {"backbone": backbone}),
        (build(torch.load(backbone, weights_only=True), mode="full"), {}),
    ):
        report = load_published(other, file, **arguments)
        assert report.missing == report.unexpected == ()
        assert f"on the backbone in place, {saved[BACKBONE_HASH][:12]}" in str(report)
        assert torch.equal(other(clips), network(clips))


def test_another_backbone_is_refused_by_both_hashes(trained, backbone_state):
    _, file, _ = trained
    other = build(backbone_state("other"))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    needed, found = torch.load(file, weights_only=True)[BACKBONE_HASH], backbone_sha256(before)
    message = rf"^\S+model\.pt: needs .*{needed}, but found one with {found}; name .* `backbone_weights`\.$"
    with pytest.raises(WeightsError, match=message):
        load_published(other, file)
    assert all(value.equal(before[key]) for key, value in other.state_dict().items())
    one = {**before, "backbone.norm.bias": before["backbone.norm.bias"].clone()}
    one["backbone.norm.bias"][0] += 1e-6
    assert backbone_sha256(one) != found
    assert backbone_sha256({f"module.{key}": value.double() for key, value in before.items()}) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"adapters": 0, "mode": "full"},
            "file seems to hold .*adapters 3, adapter_dim 24; the network has .*frames 4",
        ),
        ({"adapters": 2}, "missing 18 .*adapters 3, .*adapters 6"),
        ({"adapter_dim": 8}, r"instead of \(8, 48\).*adapter_dim 24; .*adapter_dim 8"),
        ({"num_classes": 3}, r"head\.weight \(2, 48\) instead of \(3, 48\)"),
    ],
)
def test_adapters_of_another_kind_are_named(trained, change, message):
    _, file, backbone = trained
    with pytest.raises(WeightsError, match=rf"model\.pt.*{message}"):
        load_published(build(**change), file, backbone=backbone)


def test_a_hash_must_be_one(trained):
    network, file, _ = trained
    torch.save({**trained_state(network), BACKBONE_HASH: "../secret\n"}, file)
    with pytest.raises(WeightsError, match=r"model\.pt: `backbone_sha256` must be a SHA-256"):
        load_published(network, file)


@torch.no_grad()
def test_one_file_to_share(trained, tmp_path, arr):
    network, file, backbone = trained
    clips = arr("clips", (1, 3, 4, 64, 64))
    merge(file, backbone, tmp_path / "whole.safetensors")
    whole = build(mode="full")
    assert len(load_published(whole, tmp_path / "whole.safetensors").matched) == len(whole.state_dict())
    assert torch.equal(whole(clips), network(clips))
    torch.save({**torch.load(backbone, weights_only=True), "norm.bias": torch.ones(48)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"model\.pt: needs the backbone with the SHA-256"):
        merge(file, tmp_path / "other.pth", tmp_path / "whole.safetensors")
    image = {
        key: value for key, value in whole.backbone.state_dict().items() if "tempor" not in key and "time" not in key
    }
    torch.save(image, tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"vit\.pth: is an image ViT.*build_bundle"):
        merge(file, tmp_path / "vit.pth", tmp_path / "whole.safetensors")
    with pytest.raises(WeightsError, match=r"endo_fm\.pth: is complete"):
        merge(backbone, backbone, tmp_path / "whole.safetensors")


def test_the_embedding_that_the_published_decoder_leaves_out_is_not_merged(backbone_state, tmp_path):
    torch.save(backbone_state(), tmp_path / "endo_fm.pth")
    network = EndoFMSegmenter(EndoFM(**TINY, adapters=1))
    network.backbone.load_state_dict(backbone_state(), strict=False)
    torch.save(trained_state(freeze_backbone(network)), tmp_path / "model.pt")
    merge(tmp_path / "model.pt", tmp_path / "endo_fm.pth", tmp_path / "whole.safetensors")
    other = EndoFMSegmenter(EndoFM(**TINY, adapters=1))
    load_published(other, tmp_path / "whole.safetensors")
    state = network.state_dict()
    assert all(value.equal(state[key]) for key, value in other.state_dict().items())


def test_compact_and_inspect_keep_the_hash_and_convert_refuses(trained, tmp_path):
    network, file, _ = trained
    compact(file, tmp_path / "small.safetensors")
    load_published(network, tmp_path / "small.safetensors")
    needed = torch.load(file, weights_only=True)[BACKBONE_HASH]
    for path in (file, tmp_path / "small.safetensors"):
        assert f"needs the backbone: {needed}" in inspect(path)
    with pytest.raises(WeightsError, match=r"model\.pt: holds adapters and a head, but no backbone"):
        convert(file, tmp_path / "converted.safetensors")


def test_checkpoints_leave_the_backbone_out_also_of_an_average(backbone_state):
    network = build(backbone_state())
    average = AveragedModel(network)
    state = trained_state(average)
    assert len(state) == 3 * 6 + 2 + 2
    assert state[BACKBONE_HASH] == trained_state(network)[BACKBONE_HASH]
    other = AveragedModel(build(backbone_state()))
    load_trained_state(other, state)
    state = average.state_dict()
    assert all(value.equal(state[key]) for key, value in other.state_dict().items())
    with pytest.raises(WeightsError, match="the checkpoint: needs the backbone"):
        load_trained_state(build(backbone_state("other")), trained_state(network))
    optimizer = torch.optim.SGD(network.head.parameters(), lr=1.0)
    assert trained_state(optimizer) == optimizer.state_dict()
    assert trained_state(build(mode="linear_probe")).keys() == build().state_dict().keys()
