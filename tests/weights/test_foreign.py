# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.networks.nets import EndoFM, FrameViT, STAdapterClassifier
from endofm_monai.weights import WeightsError, initialize_backbone, load_published, read_weights
from endofm_monai.weights.layouts import foreign_network

SIZES = {"img_size": 48, "embed_dim": 32, "depth": 2, "num_heads": 4}
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def clip_state(arr) -> Tensors:
    """The image tower of a tiny CLIP under OpenAI's names."""
    shapes = {
        "class_embedding": (32,),
        "positional_embedding": (10, 32),
        "conv1.weight": (32, 3, 16, 16),
        "proj": (32, 8),
        **{f"{norm}.{part}": (32,) for norm in ("ln_pre", "ln_post") for part in ("weight", "bias")},
    }
    for block in (0, 1):
        name = f"transformer.resblocks.{block}"
        shapes |= {f"{name}.attn.in_proj_weight": (96, 32), f"{name}.attn.in_proj_bias": (96,)}
        for layer, outputs, inputs in (("attn.out_proj", 32, 32), ("mlp.c_fc", 128, 32), ("mlp.c_proj", 32, 128)):
            shapes |= {f"{name}.{layer}.weight": (outputs, inputs), f"{name}.{layer}.bias": (outputs,)}
        shapes |= {f"{name}.{norm}.{part}": (32,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return {key: arr(key, shape, 0.2, float("ln_" in key and "weight" in key)) for key, shape in shapes.items()}


@pytest.fixture
def released(arr) -> Callable[[int], Tensors]:
    """The trained tensors in a released file of ST-Adapter, with one or two adapters a block."""

    def make(adapters: int) -> Tensors:
        shapes = {"fc.weight": (5, 32), "fc.bias": (5,)}
        for block in (0, 1):
            for place in ("mlp", "attn")[:adapters]:
                name = f"transformer.resblocks.{block}.adapter_pre_{place}"
                shapes |= {f"{name}.fc1.weight": (16, 32), f"{name}.fc1.bias": (16,)}
                shapes |= {f"{name}.conv.weight": (16, 1, 3, 1, 1), f"{name}.conv.bias": (16,)}
                shapes |= {f"{name}.fc2.weight": (32, 16), f"{name}.fc2.bias": (32,)}
        return {key: arr(key, shape, 0.3) for key, shape in shapes.items()}

    return make


def plain_st_adapter(state: Tensors, clips: torch.Tensor) -> torch.Tensor:
    """Logits of ST-Adapter on CLIP, step by step, for clips ``(B, 3, T, H, W)`` of the table's size."""
    batch, _, frames, _, width = clips.shape

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def adapt(x: torch.Tensor, name: str) -> torch.Tensor:
        if f"{name}.fc1.weight" not in state:
            return x
        z = linear(x[:, 1:], f"{name}.fc1").reshape(batch, frames, 3, width // 16, 16).permute(0, 4, 1, 2, 3)
        kernel, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        z = F.conv3d(z, kernel, bias, padding=(1, 0, 0), groups=16).permute(0, 2, 3, 4, 1).flatten(0, 1).flatten(1, 2)
        return torch.cat([x[:, :1], x[:, 1:] + linear(z, f"{name}.fc2")], dim=1)

    patches = F.conv2d(clips.transpose(1, 2).flatten(0, 1), state["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    tokens = torch.cat([state["class_embedding"].expand(batch * frames, 1, 32), patches], dim=1)
    x = norm(tokens + state["positional_embedding"], "ln_pre")
    for block in (0, 1):
        name = f"transformer.resblocks.{block}"
        x = adapt(x, f"{name}.adapter_pre_attn")
        qkv = F.linear(
            norm(x, f"{name}.ln_1"), state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
        )
        query, key, value = qkv.unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1)
        x = x + linear((weights @ value).transpose(1, 2).flatten(2), f"{name}.attn.out_proj")
        x = adapt(x, f"{name}.adapter_pre_mlp")
        hidden = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        x = x + linear(hidden * torch.sigmoid(1.702 * hidden), f"{name}.mlp.c_proj")
    return linear(norm(x[:, 0].reshape(batch, frames, 32).mean(dim=1), "ln_post"), "fc")


@pytest.mark.parametrize("adapters", [1, 2])
@torch.no_grad()
def test_released_files_on_clip_give_the_logits_of_plain_code(adapters, clip_state, released, arr, tmp_path, caplog):
    trained = released(adapters)
    whole = {f"visual.{key}": value.half() for key, value in clip_state.items()}
    words = {"transformer.resblocks.0.attn.in_proj_weight": arr("words", (24, 8)), "logit_scale": torch.tensor(4.6)}
    torch.save({**whole, **words, "positional_embedding": arr("places", (77, 8))}, tmp_path / "clip.pt")
    checkpoint = {"model": trained, "optimizer": {}, "lr_sched": {}, "loss_scaler": {}, "next_epoch": 12}
    torch.save(checkpoint, tmp_path / "st_adapter.pth")
    network = STAdapterClassifier.from_preset("tiny", num_classes=5, variant="clip", adapters=adapters, **SIZES).eval()
    with caplog.at_level("INFO"):
        initialize_backbone(network, tmp_path / "clip.pt")
    assert "head dropped" in caplog.text
    report = load_published(network, tmp_path / "st_adapter.pth")
    assert report.missing == report.unexpected == ()
    assert "on the backbone in place, which it does not name" in str(report)
    clips = arr("clips", (2, 3, 3, 48, 48))
    tower = {key: value.half().float() for key, value in clip_state.items()}
    torch.testing.assert_close(network(clips), plain_st_adapter({**tower, **trained}, clips), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_of_another_shape_and_an_image_vit_of_timm(arr, fill, tmp_path):
    image = fill(EndoFM(**SIZES, temporal=False, patch_size=8), 0.1)
    scales = {f"blocks.{block}.ls{part}.gamma": arr(f"{block} {part}", (32,)) for block in (0, 1) for part in (1, 2)}
    torch.save({**image.state_dict(), **scales, "mask_token": torch.ones(1, 32)}, tmp_path / "dinov2.pth")
    still, backbone = EndoFM(**SIZES, temporal=False).eval(), FrameViT(**SIZES, adapters=2).eval()
    for network in (still, backbone):
        initialize_backbone(network, tmp_path / "dinov2.pth")
    clips = arr("clips", (2, 3, 1, 32, 64))
    torch.testing.assert_close(backbone(clips), still(clips), atol=1e-5, rtol=1e-5)


def test_clip_needs_a_network_of_its_kind(clip_state, fill, tmp_path):
    torch.save(clip_state, tmp_path / "clip.pt")
    for network in (EndoFM(**SIZES), FrameViT(**SIZES)):
        kind = type(network).__name__
        with pytest.raises(
            WeightsError, match=rf"clip\.pt: .*CLIP.* {kind}: build a FrameViT with `variant='clip'`\.$"
        ):
            initialize_backbone(network, tmp_path / "clip.pt")
    torch.save(fill(FrameViT(**SIZES), 0.1).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(WeightsError, match=r"vit\.pt: .* table of positions, not .*`variant='timm'`\.$"):
        initialize_backbone(FrameViT(**SIZES, variant="clip"), tmp_path / "vit.pt")


def test_what_is_no_image_tower_is_told_in_a_sentence(clip_state, arr, tmp_path):
    block = {key: value for key, value in clip_state.items() if key.startswith("transformer.")}
    text = {**block, "token_embedding.weight": arr("words", (9, 32)), "text_projection": arr("out", (32, 8))}
    files = {
        r"is the text tower of CLIP, which reads words and no pictures; [^.]*`visual\.\*`[^.]*\.$": text,
        r"a CLIP whose image tower is a convolutional network, not a ViT\.$": {
            **text,
            "visual.conv1.weight": arr("c", (2, 3, 3, 3)),
        },
    }
    for message, state in files.items():
        torch.save(state, tmp_path / "file.pt")
        with pytest.raises(WeightsError, match=rf"file\.pt: .*{message}"):
            initialize_backbone(FrameViT(**SIZES, variant="clip"), tmp_path / "file.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-B-16.pt")
    with pytest.raises(WeightsError, match=r"ViT-B-16\.pt: is a TorchScript program .*torch\.jit\.load"):
        read_weights(tmp_path / "ViT-B-16.pt")


VIT = {"blocks.0.attn.qkv.weight": (144, 48), "blocks.0.mlp.fc1.weight": (192, 48), "norm.weight": (48,)}
TUBELETS = {"patch_embed.proj.weight": (48, 3, 2, 16, 16)}
NETWORKS = {
    "VideoMAE pre-training": (
        "VideoMAE",
        {"mask_token": (1, 1, 24), **{f"encoder.{key}": size for key, size in (VIT | TUBELETS).items()}},
    ),
    "VideoMAE fine-tuned": ("VideoMAE", VIT | TUBELETS | {"blocks.0.attn.q_bias": (48,), "fc_norm.weight": (48,)}),
    "VideoMAE of Hugging Face": (
        "VideoMAE",
        {"videomae.embeddings.patch_embeddings.projection.weight": (48, 3, 2, 16, 16)},
    ),
    "EndoMamba, FPRL": (
        "Mamba",
        {"patch_embed.proj.weight": (48, 3, 1, 16, 16), "cls_token": (1, 1, 48), "layers.0.mixer.A_log": (96, 16)},
    ),
    "cholec80.pth": (
        "cholec80",
        {
            "share.conv1.weight": (64, 3, 7, 7),
            "share.layer1.0.conv1.weight": (64, 64, 1, 1),
            "projection.weight": (48, 2048, 1, 1),
            "layer.0.temporal_attn.qkv.weight": (144, 48),
            "cls_token": (1, 1, 48),
            "lstm.weight_ih_l0": (192, 48),
            "fc.weight": (7, 48),
        },
    ),
    "SurgeNet": ("CAFormer", {"downsample_layers.0.conv.weight": (64, 3, 7, 7), "stages.0.0.token_mixer.scale": (1,)}),
    "SurgeNet's ConvNeXt": ("ConvNeXt", {"stages.0.0.dwconv.weight": (96, 1, 7, 7)}),
    "ConvNeXt of timm": ("ConvNeXt", {"stages.0.blocks.0.conv_dw.weight": (96, 1, 7, 7)}),
    "SurgeNet's PVT": ("PVTv2", {"patch_embed1.proj.weight": (64, 3, 7, 7), "block1.0.mlp.dwconv.dwconv.bias": (9,)}),
    "GSViT": ("GSViT", {"evit.1.0.mixer.m.attn.attention_biases": (4, 49)}),
    "SurgVLP": ("ResNet", {"backbone_img.model.layer1.0.conv1.weight": (64, 64, 1, 1)}),
    "DINOv3": ("DINOv3", VIT | {"rope_embed.periods": (16,), "patch_embed.proj.weight": (48, 3, 16, 16)}),
}


@pytest.fixture(params=NETWORKS)
def foreign(request, arr):
    """A word that names a network, and tensors under its names."""
    word, shapes = NETWORKS[request.param]
    return word, {name: arr(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("nest", [lambda state: state, lambda state: {"model": state, "epoch": 3}])
@pytest.mark.parametrize("load", [load_published, initialize_backbone])
def test_a_file_of_another_network_is_refused_in_one_sentence(tmp_path, make_backbone, foreign, load, nest):
    word, state = foreign
    backbone = make_backbone()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    torch.save(nest({f"module.{key}": tensor for key, tensor in state.items()}), tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=rf"file\.pth: holds [^.]*{word}.*EndoFM[^.]*\.$"):
        load(backbone, tmp_path / "file.pth")
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("temporal", [True, False])
def test_an_endofm_is_none_of_them_whatever_is_around_it(temporal):
    state = EndoFM.from_preset("mini", temporal=temporal).state_dict()
    assert foreign_network(state) == ""
    assert bool(foreign_network(state | {"resnet.layer1.0.conv1.weight": torch.ones(1)})) is not temporal
