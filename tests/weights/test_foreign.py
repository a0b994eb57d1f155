# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.nets import EndoFM
from endofm_monai.weights import WeightsError, initialize_backbone, load_published
from endofm_monai.weights.foreign import foreign_network

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
