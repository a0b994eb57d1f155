# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.networks import convert_to_onnx
from torch import nn

from endofm_monai.networks.nets import EndoFM, EndoFMClassifier
from endofm_monai.weights import WeightsError, load_published

TINY = {"img_size": 64, "num_frames": 4, "embed_dim": 48, "depth": 3, "num_heads": 4}


def build(**kwargs) -> EndoFMClassifier:
    torch.manual_seed(0)
    return EndoFMClassifier.from_preset("tiny", **{**TINY, **kwargs})


def save_published(path, arr, fill, num_classes=2):
    """A file in the layout of the published fine-tuned classifier, and the backbone and head in it."""
    backbone = fill(EndoFM(**TINY), 0.1)
    head = {"linear.weight": arr("linear.weight", (num_classes, 48), 0.1), "linear.bias": arr("bias", (num_classes,))}
    content = {
        "backbone_state_dict": {f"module.{key}": value for key, value in backbone.state_dict().items()},
        "state_dict": {f"module.{key}": value for key, value in head.items()},
        "epoch": 20,
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 20},
        "best_f1": 0.9,
    }
    torch.save(content, path)
    return backbone, head


def test_published_file_gives_the_golden_logits(tmp_path, arr, fill, golden):
    path = tmp_path / "polypdiag.pth"
    _, head = save_published(path, arr, fill)
    network = build().eval()
    report = load_published(network, path)
    assert len(report.matched) == len(network.state_dict())
    class_token = torch.tensor(golden["tiny"]["cls"]["T4_64x64"]).view(2, 48)  # of the published code
    expected = class_token @ head["linear.weight"].T + head["linear.bias"]
    with torch.no_grad():
        logits = network(arr("x_T4_64x64", (2, 3, 4, 64, 64)))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_backbone_of_a_published_file_alone_leaves_a_new_head(tmp_path, arr, fill):
    path = tmp_path / "polypdiag.pth"
    backbone, _ = save_published(path, arr, fill, num_classes=3)
    network = build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"polypdiag\.pth.*head\.weight \(3, 48\) instead of \(2, 48\)"):
        load_published(network, path)
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())
    load_published(network.backbone, path)
    assert network.backbone.state_dict()["norm.weight"].equal(backbone.norm.weight)
    assert network.head.weight.equal(before["head.weight"])


def test_linear_head_is_initialized_as_published():
    head = build(embed_dim=1024, num_heads=16, depth=1, num_classes=8).head
    assert isinstance(head, nn.Linear)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_head_is_applied_to_features(head):
    network, clips = build(head=head, num_classes=5).eval(), torch.randn(2, 3, 3, 32, 48)
    features = network.features(clips)
    assert features.shape == ((2, 48) if head == "linear" else (2, 1 + 3 * 2 * 3, 48))
    assert network(clips).shape == (2, 5)
    torch.testing.assert_close(network.head(features), network(clips))


def test_attentive_head_sees_every_token_in_any_order():
    network = build(head="attentive").eval()
    tokens = torch.randn(1, 7, 48, requires_grad=True)
    logits = network.head(tokens)
    torch.testing.assert_close(network.head(tokens.flip(1)), logits)
    logits[0, 0].backward()
    assert (tokens.grad.norm(dim=2) > 0).all()


TRAINED = {
    "full": lambda name: True,
    "linear_probe": lambda name: name.startswith("head."),
    "last_blocks": lambda name: name.startswith(
        ("head.", "backbone.norm.", "backbone.blocks.1.", "backbone.blocks.2.")
    ),
}


@pytest.mark.parametrize("mode", TRAINED)
def test_mode_says_what_learns_and_what_drops_paths(mode):
    network = build(mode=mode, last_blocks=2, drop_path_rate=0.9).train()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], lr=1.0)
    # temporal_fc starts at zero, so only after a few steps every parameter has had a gradient
    for _ in range(4):
        network(torch.randn(8, 3, 4, 64, 64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    learned = {name for name, value in network.named_parameters() if not value.equal(before[name])}
    assert learned == {name for name in before if TRAINED[mode](name)}
    same = torch.randn(1, 3, 4, 64, 64).expand(16, -1, -1, -1, -1)
    assert (network.features(same).std(dim=0).max() < 1e-4) == (mode == "linear_probe")


def test_frozen_blocks_record_no_gradient():
    network = build(mode="last_blocks", last_blocks=1).train()
    recorded = []
    for block in network.backbone.blocks:
        block.register_forward_hook(lambda module, inputs, output: recorded.append(output.requires_grad))
    network(torch.randn(1, 3, 2, 32, 32))
    assert recorded == [False, False, True]


def test_scripted_network_gives_the_same():
    for head in ("linear", "attentive"):
        network, clips = build(head=head, mode="last_blocks").eval(), torch.randn(1, 3, 2, 32, 32)
        torch.testing.assert_close(torch.jit.script(network)(clips), network(clips))


def test_onnx_network_takes_another_batch():
    runtime = pytest.importorskip("onnxruntime")
    network, clips = build(head="attentive", depth=1).eval(), torch.randn(2, 3, 3, 32, 48)
    exported = convert_to_onnx(
        network, [clips], input_names=["image"], output_names=["pred"], dynamic_axes={"image": [0]}, dynamo=False
    )
    session = runtime.InferenceSession(exported.SerializeToString())
    (logits,) = session.run(None, {"image": clips[:1].numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(clips[:1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "half"}, "`mode` must be"),
        ({"mode": "last_blocks", "last_blocks": 4}, "`last_blocks` must be from 1 to the backbone's depth 3"),
        ({"head": "quadratic"}, "`head` must be"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong)
