# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.networks.nets import EndoFM, EndoFMDetector, EndoFMSegmenter
from endofm_monai.weights import WeightsError, initialize_backbone
from endofm_monai.weights.image_vit import resample_patch_kernel, resample_position_table

HEADS = 4


def image_vit(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Class tokens ``(B, D)`` of a plain image ViT in timm's layout, with or without LayerScale."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    kernel = state["patch_embed.proj.weight"]
    patches = F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    class_tokens = state["cls_token"].expand(len(images), -1, -1)
    x = torch.cat([class_tokens, patches.flatten(2).transpose(1, 2)], dim=1) + state["pos_embed"]
    for block in sorted({key.split(".")[1] for key in state if key.startswith("blocks.")}):
        name = f"blocks.{block}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        query, key, value = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
        attended = linear((weights @ value).transpose(1, 2).flatten(2), f"{name}.attn.proj")
        x = x + state.get(f"{name}.ls1.gamma", 1) * attended
        hidden = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x = x + state.get(f"{name}.ls2.gamma", 1) * linear(hidden, f"{name}.mlp.fc2")
    return norm(x[:, 0], "norm")


@pytest.fixture
def image_state(make_backbone, arr):
    """An image ViT of the tiny backbone's size in timm's layout."""

    def make(layer_scale: bool = False, patch_size: int = 16, side: int = 4) -> dict[str, torch.Tensor]:
        shapes = {
            key: tensor.shape
            for key, tensor in make_backbone(patch_size=patch_size, img_size=patch_size * side).state_dict().items()
            if "temporal" not in key and key != "time_embed"
        }
        if layer_scale:
            shapes |= {f"blocks.{block}.ls{index}.gamma": (48,) for block in range(3) for index in (1, 2)}
        return {key: arr(f"image {key}", shape, 0.2, float("norm" in key)) for key, shape in shapes.items()}

    return make


@pytest.fixture
def start(tmp_path):
    """Initialize a backbone from a saved state dict."""

    def run(backbone: EndoFM, state: dict[str, torch.Tensor]) -> EndoFM:
        torch.save(state, tmp_path / "vit.pth")
        return initialize_backbone(backbone, tmp_path / "vit.pth")

    return run


@pytest.mark.parametrize("layer_scale", [False, True])
@pytest.mark.parametrize("num_frames", [1, 3])
@torch.no_grad()
def test_a_still_clip_gives_the_image_models_features(make_backbone, image_state, start, arr, layer_scale, num_frames):
    state = image_state(layer_scale)
    backbone = start(make_backbone(), state)
    images = arr("images", (2, 3, 64, 64))
    clips = images.unsqueeze(2).expand(-1, -1, num_frames, -1, -1)
    torch.testing.assert_close(backbone(clips), image_vit(state, images), atol=1e-5, rtol=1e-5)


def test_temporal_attention_starts_from_the_spatial_one(make_backbone, image_state, start):
    state = image_state(layer_scale=True)
    block = start(make_backbone(), state).blocks[1]
    assert torch.equal(block.temporal_attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
    assert torch.equal(block.temporal_attn.proj.weight, block.attn.proj.weight)
    assert torch.equal(block.attn.proj.bias, state["blocks.1.attn.proj.bias"] * state["blocks.1.ls1.gamma"])
    assert torch.equal(block.temporal_norm1.weight, state["blocks.1.norm1.weight"])
    assert not block.temporal_fc.weight.any()
    assert not block.temporal_fc.bias.any()


@pytest.mark.parametrize(
    "added",
    [
        ["mask_token", "decoder_embed.weight", "decoder_pos_embed", "decoder_blocks.0.norm1.bias", "decoder_pred.bias"],
        ["mask_token", "dino_head.mlp.0.weight", "ibot_head.last_layer.weight"],
    ],
    ids=["MAE", "DINOv2"],
)
def test_what_pretraining_adds_is_dropped(make_backbone, image_state, start, arr, added):
    state = image_state()
    backbone = start(make_backbone(), state | {key: arr(key, (48,)) for key in added})
    assert torch.equal(backbone.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])


@torch.no_grad()
def test_a_backbone_without_a_temporal_branch_starts_one_with_it(make_backbone, image_state, start, arr):
    spatial = start(make_backbone(temporal=False), image_state(layer_scale=True))
    clips = arr("images", (2, 3, 3, 64, 64))
    assert torch.equal(start(make_backbone(), spatial.state_dict())(clips), spatial(clips))


@torch.no_grad()
def test_a_larger_patch_embeds_enlarged_images_alike(make_backbone, image_state, start, arr):
    state = image_state(patch_size=14)
    backbone = start(make_backbone(), state)
    patches = arr("patches", (16, 3, 14, 14))
    enlarged = F.interpolate(patches, size=(16, 16), mode="bicubic", antialias=True)
    images = enlarged.reshape(4, 4, 3, 16, 16).permute(2, 0, 3, 1, 4).reshape(1, 3, 64, 64)
    originals = patches.reshape(4, 4, 3, 14, 14).permute(2, 0, 3, 1, 4).reshape(1, 3, 56, 56)
    torch.testing.assert_close(backbone(images.unsqueeze(2)), image_vit(state, originals), atol=1e-4, rtol=1e-4)


def test_patch_kernel_keeps_the_size_of_tokens_also_for_smaller_patches():
    kernel = torch.ones(1, 1, 16, 16)
    for patch_size in (8, 14, 16, 20):
        resampled = resample_patch_kernel(kernel, patch_size)
        assert resampled.shape == (1, 1, patch_size, patch_size)
        assert resampled.sum() == pytest.approx(256, rel=0.02)  # a patch of ones gives the same token


def test_position_table_keeps_the_class_entry_and_linear_gradients():
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    patches = torch.stack([rows, columns], dim=-1).reshape(1, 400, 2)
    table = resample_position_table(torch.cat([torch.full((1, 1, 2), 7.0), patches], dim=1), (10, 5), (20, 20))
    assert table[0, 0].tolist() == [7, 7]
    grid = table[0, 1:].unflatten(0, (10, 5))
    torch.testing.assert_close(grid[3:7, 2, 0], torch.tensor([6.5, 8.5, 10.5, 12.5]), atol=0.05, rtol=0)
    assert grid[5, 2, 1].item() == pytest.approx(9.5, abs=0.05)


def test_a_table_of_no_square_is_refused(make_backbone, image_state, start):
    state = image_state()
    state["pos_embed"] = torch.zeros(1, 1 + 3 * 5, 48)[:, :-1]
    with pytest.raises(WeightsError, match=r": `pos_embed` has 15 entries, which are of no square\."):
        start(make_backbone(), state)


@pytest.mark.parametrize("size", [(64, 80), (144, 256)])  # the latter have as many patches as a square, 144
def test_the_table_of_an_own_network_of_single_frames_stays_where_it_fits(size, start):
    small = {"embed_dim": 48, "depth": 1, "num_heads": HEADS, "img_size": size}
    detector = EndoFMDetector.from_preset("mini", 1, **small, temporal=False)
    backbone = start(EndoFM(**small), detector.state_dict())
    assert torch.equal(backbone.pos_embed, detector.backbone.pos_embed)


def test_a_table_without_class_entry(make_backbone, image_state, start):
    state = image_state()
    state["pos_embed"] = state["pos_embed"][:, 1:]
    backbone = start(make_backbone(), state)
    assert not backbone.pos_embed[:, 0].any()
    assert torch.equal(backbone.pos_embed[:, 1:], state["pos_embed"])


def test_what_has_no_counterpart_is_reported(make_backbone, image_state, start, caplog):
    extra = {"reg_token": torch.ones(1, 4, 48), "head.weight": torch.ones(10, 48), "head.bias": torch.ones(10)}
    with caplog.at_level(logging.INFO):
        start(make_backbone(), image_state(patch_size=14, side=5) | extra)
    assert "image ViT in a state dict" in caplog.text
    assert "loaded 67 of the network's 67 tensors" in caplog.text
    assert "resampled 2 (pos_embed, patch_embed.proj.weight)" in caplog.text
    assert "register tokens dropped" in caplog.text
    assert "head dropped" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"blocks.0.mlp.fc1.weight": torch.ones(384, 48)}, "SwiGLU"),
        ({"blocks.0.mlp.w12.weight": torch.ones(384, 48)}, "SwiGLU"),
        ({"norm_pre.weight": torch.ones(48)}, "CLIP"),
        ({"blocks.0.attn.q_norm.weight": torch.ones(12)}, r"unexpected 2 \(blocks\.0\.attn\.q_norm\.weight"),
        ({"blocks.3.norm1.weight": torch.ones(48)}, "depth 4.*the network has .*depth 3"),
        ({"cls_token": torch.ones(1, 1, 64)}, "embed_dim 64.*the network has embed_dim 48"),
    ],
)
def test_another_kind_of_image_vit_is_named(make_backbone, image_state, start, extra, message):
    with pytest.raises(WeightsError, match=rf"vit\.pth.*{message}"):
        start(make_backbone(), image_state() | extra)


@pytest.mark.parametrize(
    ("key", "shape", "needed"),
    [
        ("patch_embed.proj.weight", (48, 768), r"\(D, C, P, P\), P at most 64"),
        ("patch_embed.proj.weight", (48, 3, 65, 65), r"\(D, C, P, P\), P at most 64"),
        ("patch_embed.proj.weight", (), r"\(D, C, P, P\), P at most 64"),
        ("pos_embed", (17, 48), "3 dimensions"),
        ("pos_embed", (1, 0, 48), "3 dimensions"),
        ("cls_token", (48,), "3 dimensions"),
        ("blocks.1.attn.qkv.weight", (48,), "2 dimensions"),
        ("blocks.1.ls1.gamma", (7,), r"torch\.Size\(\[48\]\)"),
        ("blocks.9.ls2.gamma", (48,), r"those of blocks\.9\.mlp\.fc2\.bias"),
    ],
)
def test_a_tensor_that_cannot_be_what_its_name_says(make_backbone, image_state, start, key, shape, needed):
    with pytest.raises(WeightsError, match=rf"vit\.pth: `{key}` has the shape .*, but needs {needed}"):
        start(make_backbone(), image_state() | {key: torch.ones(shape)})


def test_an_image_vit_without_positions(make_backbone, image_state, start):
    state = image_state()
    del state["pos_embed"]
    with pytest.raises(WeightsError, match=r"vit\.pth: is an image ViT without \['pos_embed'\]"):
        start(make_backbone(), state)


@pytest.mark.parametrize("temporal", [True, False])
def test_the_published_segmentation_starts_from_one_without_embedding_as_its_own_weights_are(
    make_backbone, start, temporal
):
    trained = EndoFMSegmenter(make_backbone(temporal=False)).state_dict()
    network = EndoFMSegmenter(make_backbone(temporal=temporal))
    start(network, trained)
    state = network.state_dict()
    kept = [key for key in trained if key.startswith("backbone.")]
    assert kept
    assert all(state[key].equal(trained[key]) for key in kept)
