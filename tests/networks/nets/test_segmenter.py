# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from endofm_monai.networks.nets import EndoFM, EndoFMSegmenter
from endofm_monai.networks.nets.segmenter import PUBLISHED_PREFIXES
from endofm_monai.weights import WeightsError, initialize_backbone, load_published

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "golden_segmentation.json").read_text())
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2}


def published_value(arr: Any, key: str, shape: list[int]) -> torch.Tensor:
    """The weights that the golden values were made with."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        return arr(key, shape, 0.1)
    if key.endswith("running_var"):
        return 1 + arr(key, shape).abs() * 0.1
    if key.endswith(".bias"):
        return arr(key, shape, 0.05)
    if key.endswith(("cls_token", "position_embeddings")):
        return arr(key, shape, 0.5)
    if len(shape) == 1:
        return arr(key, shape, 0.05, 1.0)
    return arr(key, shape, 0.04 if len(shape) == 2 else math.sqrt(2 / math.prod(shape[1:])))


def deviation(tensor: torch.Tensor, probe: dict[str, Any]) -> float:
    """Largest deviation of a tensor from a probe, relative to the largest of the probed values or to the norm."""
    assert list(tensor.shape) == probe["shape"]
    values, expected = tensor.detach().double().flatten().numpy(), np.asarray(probe["val"])
    largest = np.abs(values[probe["idx"]] - expected).max() / max(np.abs(expected).max(), 1e-12)
    return max(largest, abs(np.linalg.norm(values) - probe["l2"]) / max(probe["l2"], 1e-12))


def clip_of(arr: Any, name: str, frames: int) -> torch.Tensor:
    return arr(name, (frames, 3, 224, 224), 0.5).transpose(0, 1)[None]


@pytest.fixture(scope="module")
def published(arr, tmp_path_factory) -> EndoFMSegmenter:
    """The network with the weights of a file like the published ``cvc.pth``."""
    path = tmp_path_factory.mktemp("weights") / "cvc.pth"
    torch.save({key: published_value(arr, key, shape) for key, shape in GOLDEN["state_dict_shapes"].items()}, path)
    network = EndoFMSegmenter.from_preset("base", drop_path_rate=0.0)
    network.encoder.dropout.p = 0.0
    report = load_published(network, path)
    assert len(report.matched) == 458
    assert report.missing == report.unexpected == ()
    return network.eval()


def test_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = EndoFMSegmenter.from_preset("base")
    assert sum(parameter.numel() for parameter in network.parameters()) == 140_730_786
    assert len(network.state_dict()) == 458


@pytest.mark.full_size
@pytest.mark.parametrize("frames", [3, 6])
def test_gives_what_the_published_network_gives(published, arr, frames):
    expected = GOLDEN["eval"][f"T{frames}"]
    seen: dict[str, torch.Tensor] = {}
    places = {
        "encoder_output": published.backbone.norm,
        "conv_more": published.decoder.conv_more,
        **{f"vit_block_{index}": published.backbone.blocks[index] for index in (0, 5, 11)},
        **{f"decoder_block_{index}": block for index, block in enumerate(published.decoder.blocks)},
    }
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, module in places.items()
    ]
    hooks.append(published.encoder.register_forward_hook(lambda _, __, output: seen.__setitem__("encoder", output)))
    with torch.no_grad():
        logits = published(clip_of(arr, f"seg/x_T{frames}", frames))
    for hook in hooks:
        hook.remove()
    embedding, skips = seen.pop("encoder")
    tokens = seen["encoder_output"][:, 1:].reshape(196, frames, 768).transpose(0, 1)
    seen |= {"embedding": embedding.flatten(2).transpose(1, 2), "encoder_output": tokens}
    for name, value in seen.items():
        assert deviation(value, expected[name]) < 5e-4, name
    for index, skip in enumerate(skips):
        assert deviation(skip, expected[f"skip_{index}"]) < 1e-4
    assert deviation(logits[0].transpose(0, 1), expected["logits"]) < 1e-4
    foreground = logits[0].argmax(dim=0).sum().item()
    assert abs(foreground - expected["argmax_foreground_pixels"]) <= expected["pixels_with_abs_margin_below_1e-3"]


@pytest.mark.full_size
def test_learns_as_the_published_network_does(published, arr):
    network = copy.deepcopy(published).double().train()
    expected = GOLDEN["train_step"]
    own = dict(network.requires_grad_(False).named_parameters())
    for name in expected["float64"]["grad"]:  # the others' gradients would cost a quarter of the time
        own[own_name(name)].requires_grad_()
    target = (arr("seg/train_y_T3", (3, 224, 224)) > 1.0)[None, None]
    loss_function = DiceCELoss(
        to_onehot_y=True, softmax=True, squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5,
        lambda_dice=0.5, lambda_ce=0.5,
    )  # fmt: skip
    logits = network(clip_of(arr, "seg/train_x_T3", 3).double())
    loss = loss_function(logits, target.double())
    loss.backward()
    assert float(loss) == pytest.approx(expected["float64"]["total"], rel=1e-6)
    for name, probe in expected["float64"]["grad"].items():
        assert deviation(own[own_name(name)].grad, probe) < 1e-5, name


def own_name(published: str) -> str:
    prefix = next(prefix for prefix in PUBLISHED_PREFIXES if published.startswith(prefix))
    name = PUBLISHED_PREFIXES[prefix] + published.removeprefix(prefix)
    return name if name.startswith(("encoder.", "decoder.", "head.")) else f"backbone.{name}"


@pytest.mark.parametrize("decoder", ["transunet", "simple"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (3, 48, 32), (2, 96, 112)])
def test_takes_any_number_of_frames_and_any_multiple_of_16(decoder, frames, height, width):
    network = EndoFMSegmenter(EndoFM(**SMALL), num_classes=3, decoder=decoder).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, frames, height, width)).shape == (2, 3, frames, height, width)


@pytest.mark.parametrize("decoder", ["transunet", "simple"])
def test_every_parameter_learns_and_frames_see_each_other(decoder):
    torch.manual_seed(0)
    network = EndoFMSegmenter(EndoFM(**SMALL), decoder=decoder).double().eval()
    for block in network.backbone.blocks:  # starts at zero, where time has no effect
        torch.nn.init.normal_(block.temporal_fc.weight, std=0.5)
    clip = torch.rand(1, 3, 2, 32, 32, dtype=torch.float64)
    before = network(clip)
    (before * torch.rand_like(before)).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    clip[:, :, 1] = torch.rand(1, 3, 32, 32)
    assert (network(clip)[:, :, 0] - before[:, :, 0]).abs().max() > 1e-9  # in double precision


@pytest.mark.parametrize("decoder", ["transunet", "simple"])
def test_recomputed_activations_give_the_same_gradients(decoder):
    gradients = []
    for checkpointing in (False, "selective", True):
        torch.manual_seed(0)
        network = EndoFMSegmenter(EndoFM(**SMALL, activation_checkpointing=checkpointing), decoder=decoder)
        network(torch.rand(1, 3, 2, 32, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, *recomputed in zip(*gradients, strict=True):
        for gradient in recomputed:
            torch.testing.assert_close(gradient, plain)


@pytest.mark.parametrize("decoder", ["transunet", "simple"])
def test_scripted_network_gives_the_same(decoder):
    network = EndoFMSegmenter(EndoFM(**SMALL), decoder=decoder).eval()
    clip = torch.rand(1, 3, 3, 64, 32)
    torch.testing.assert_close(torch.jit.script(network)(clip), network(clip))


@pytest.mark.parametrize("decoder", ["transunet", "simple"])
def test_starts_from_a_pretrained_backbone(decoder, tmp_path):
    torch.manual_seed(0)
    pretrained = EndoFM(**SMALL)
    torch.save(
        {"teacher": {f"backbone.{key}": value for key, value in pretrained.state_dict().items()}}, tmp_path / "p.pt"
    )
    network = EndoFMSegmenter(EndoFM(**SMALL), decoder=decoder)
    initialize_backbone(network, tmp_path / "p.pt")
    torch.testing.assert_close(network.backbone.blocks[1].mlp.fc1.weight, pretrained.blocks[1].mlp.fc1.weight)
    if decoder == "simple":
        torch.testing.assert_close(network.backbone.pos_embed, pretrained.pos_embed)
    else:
        assert not any("embed" in name for name, _ in network.backbone.named_parameters())


def test_own_file_loads_again_and_that_of_the_other_decoder_is_refused(tmp_path):
    network = EndoFMSegmenter(EndoFM(**SMALL), decoder="simple")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert load_published(EndoFMSegmenter(EndoFM(**SMALL), decoder="simple"), tmp_path / "model.pt").unexpected == ()
    with pytest.raises(WeightsError, match=r"model\.pt.*EndoFMSegmenter"):
        load_published(EndoFMSegmenter(EndoFM(**SMALL)), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EndoFMSegmenter(EndoFM(**SMALL), decoder="unet"), "`decoder` must be"),
        (lambda: EndoFMSegmenter(EndoFM(**SMALL), num_classes=1), "`num_classes` must be at least 2"),
        (lambda: EndoFMSegmenter(EndoFM(patch_size=8, **SMALL)), "patches of 16 pixels"),
        (lambda: EndoFMSegmenter(EndoFM(**SMALL))(torch.zeros(1, 3, 1, 30, 32)), "got 30x32"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
