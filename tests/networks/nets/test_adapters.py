# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.networks import convert_to_onnx
from torch import nn
from torch.testing import assert_close

from endofm_monai.networks import freeze_backbone
from endofm_monai.networks.blocks import SpatialTemporalAdapter
from endofm_monai.networks.nets import EndoFM, EndoFMClassifier, EndoFMDetector, EndoFMSegmenter, FrameViT
from endofm_monai.networks.nets import STAdapterClassifier as Rival

TINY = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 4}
SHORT = {"embed_dim": 48, "depth": 2, "num_heads": 4}
CLIPS = [(2, 3, 4, 64, 64), (1, 3, 1, 32, 64), (2, 3, 3, 48, 32)]


def is_adapter(name: str) -> bool:
    return ".adapter_pre_" in name


def awake(network: nn.Module) -> nn.Module:
    """Give adapters an effect."""
    for module in network.modules():
        if isinstance(module, SpatialTemporalAdapter):
            nn.init.normal_(module.conv.weight)
    return network


@pytest.mark.parametrize("shape", CLIPS)
@pytest.mark.parametrize("adapters", [1, 2])
@pytest.mark.parametrize("kind", [EndoFM, FrameViT, lambda **sizes: EndoFM(temporal=False, **sizes)])
@torch.no_grad()
def test_new_adapters_change_no_bit(kind, adapters, shape, fill):
    plain, adapted = fill(kind(**TINY, adapters=0), 0.1), kind(**TINY, adapters=adapters).eval()
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert len(missing) == 6 * 3 * adapters
    assert all(map(is_adapter, missing))
    clips = torch.randn(shape)
    assert torch.equal(adapted(clips), plain(clips))
    assert torch.equal(adapted.forward_features(clips).token_map, plain.forward_features(clips).token_map)
    before = plain.forward_features(clips)
    after = awake(adapted).forward_features(clips)
    assert not torch.equal(after.token_map, before.token_map)
    assert_close(after.class_token, adapted(clips), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_meet_in_adapters_alone(fill):
    backbone = fill(FrameViT(**TINY), 0.1)
    for module in backbone.modules():
        if isinstance(module, SpatialTemporalAdapter):
            module.reset_parameters()
    clips = torch.randn(2, 3, 3, 64, 64)
    apart = EndoFM(**TINY, temporal=False).eval()
    apart.load_state_dict({key: value for key, value in backbone.state_dict().items() if not is_adapter(key)})
    apart.norm = nn.Identity()
    mean = torch.stack([apart(clips[:, :, [index]]) for index in range(3)]).mean(dim=0)
    assert_close(backbone(clips), backbone.norm(mean), atol=1e-5, rtol=1e-5)
    assert backbone.attention_maps(clips).shape == (2, 3, 4, 17, 17)


@pytest.mark.parametrize("kind", [EndoFM, FrameViT])
def test_frozen_backbone_learns_in_its_adapters_only_and_drops_no_path(kind):
    sizes = TINY | ({"drop_path_rate": 0.9} if kind is EndoFM else {})
    network = EndoFMClassifier(awake(kind(**sizes, adapters=2)), nn.Linear(48, 2), mode="adapter").train()
    assert network.head.training
    assert not any(module.training for module in network.backbone.modules())
    same = torch.randn(1, 3, 2, 32, 32).expand(8, -1, -1, -1, -1)
    network(same).square().sum().backward()
    assert network.features(same).std(dim=0).max() < 1e-4
    moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    unseen = "backbone.blocks.2.adapter_pre_mlp."  # by the class token
    expected = {name for name, _ in network.named_parameters() if is_adapter(name) or name.startswith("head.")}
    assert moved == {name for name in expected if not name.startswith(unseen)}
    assert moved == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("mode", ["full", "last_blocks"])
def test_all_that_is_to_learn_has_a_gradient_in_other_modes_too(mode):
    """Processes that wait for the gradients of all parameters would end in an error."""
    network = EndoFMClassifier(EndoFM(**TINY, adapters=1), nn.Linear(48, 2), mode=mode).train()
    network(torch.randn(1, 3, 2, 32, 32)).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("variant", ["timm", "clip", "dinov3"])
def test_of_an_image_vit_the_last_blocks_alone_learn(variant):
    network = EndoFMClassifier(FrameViT(**TINY, variant=variant), nn.Linear(48, 2), mode="last_blocks").train()
    network(torch.randn(1, 3, 2, 32, 32)).sum().backward()
    learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {".".join(name.split(".")[:3]) for name in learning} == {
        *("head.weight", "head.bias", "backbone.norm.weight", "backbone.norm.bias", "backbone.blocks.2"),
    }


def test_mode_without_adapters_and_their_number_are_checked():
    with pytest.raises(ValueError, match="set `adapters` to 1 or 2"):
        EndoFMClassifier.from_preset("tiny", mode="adapter", **TINY)
    for kind in (EndoFM, FrameViT):
        with pytest.raises(ValueError, match="`adapters` must be 0, 1 or 2, but got 3"):
            kind(**TINY, adapters=3)


@pytest.mark.parametrize("kind", [EndoFM, FrameViT])
def test_checkpointing_gives_the_same_gradients(kind):
    torch.manual_seed(0)
    backbone = awake(kind(**TINY, adapters=2))
    backbone.freeze()
    clips, gradients = torch.randn(1, 3, 3, 32, 48), []
    for backbone.activation_checkpointing in (False, "selective", True):
        backbone.zero_grad()
        backbone.forward_features(clips).token_map.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in backbone.parameters() if parameter.requires_grad])
    for plain, *recomputed in zip(*gradients, strict=True):
        assert all(map(plain.equal, recomputed))


@pytest.mark.parametrize("variant", ["timm", "clip", "dinov3"])
@torch.no_grad()
def test_scripted_and_onnx_networks_give_the_same(variant):
    runtime = pytest.importorskip("onnxruntime")
    adapted = EndoFMClassifier.from_preset("tiny", adapters=2, mode="adapter", **TINY)
    for network in (adapted, Rival.from_preset("tiny", variant=variant, adapters=2, **TINY)):
        awake(network).eval()
        for shape in CLIPS:
            assert_close(torch.jit.script(network)(torch.ones(shape)), network(torch.ones(shape)))
        clips = torch.randn(2, 3, 3, 32, 48)
        exported = convert_to_onnx(network, [clips], input_names=["image"], output_names=["pred"], dynamo=False)
        session = runtime.InferenceSession(exported.SerializeToString())
        (logits,) = session.run(None, {"image": clips.numpy()})
        assert_close(torch.from_numpy(logits), network(clips), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", [EndoFMSegmenter, EndoFMDetector])
@pytest.mark.parametrize("adapters", [1, 2])
def test_other_tasks_freeze_their_backbone(task, adapters):
    network = freeze_backbone(task.from_preset("tiny", **SHORT, adapters=adapters)).train()
    outputs = network(torch.randn(1, 3, 2, 64, 64))
    outputs.square().mean().backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {n for n, _ in network.named_parameters() if is_adapter(n) or not n.startswith("backbone.")}
    assert all(parameter.grad is None for name, parameter in network.named_parameters() if name not in trained)
    assert network.backbone.blocks[-1].adapter_pre_mlp.conv.weight.grad.any()


def test_rival_is_initialized_as_published():
    network = Rival.from_preset("mini", num_classes=400, embed_dim=384, num_heads=6, depth=1)
    assert network.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not network.head.bias.any()
    assert (network.head.train()(torch.ones(1, 384)) != network.head(torch.ones(1, 384))).any()
    assert torch.equal(network.head.eval()(torch.ones(1, 384)), network.head(torch.ones(1, 384)))


def test_published_numbers_of_parameters_with_heads():
    with torch.device("meta"):
        for adapters, classes, expected in ((1, 400, 7_417_744), (2, 174, 14_354_094)):
            network = Rival.from_preset("base", num_classes=classes, adapters=adapters, variant="clip")
            named = [(name, value) for name, value in network.named_parameters() if is_adapter(name) or "head" in name]
            assert sum(value.numel() for _, value in named) == expected
            assert len(named) == 72 * adapters + 2
