# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.networks.nets import EndoFM, FrameViT
from endofm_monai.weights import WeightsError, initialize_backbone

SIZES = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def dinov3(arr) -> Tensors:
    """A tiny DINOv3 under its own names; the bias of the keys is noise that its mask leaves out."""
    shapes = {"cls_token": (1, 1, 32), "storage_tokens": (1, 4, 32), "mask_token": (1, 32)}
    shapes |= {"patch_embed.proj.weight": (32, 3, 16, 16), "patch_embed.proj.bias": (32,)}
    for block in (0, 1):
        name = f"blocks.{block}"
        for layer, outputs, inputs in (
            *(("attn.qkv", 96, 32), ("attn.proj", 32, 32)),
            *(("mlp.fc1", 128, 32), ("mlp.fc2", 32, 128)),
        ):
            shapes |= {f"{name}.{layer}.weight": (outputs, inputs), f"{name}.{layer}.bias": (outputs,)}
        shapes |= {f"{name}.{part}": (32,) for part in ("ls1.gamma", "ls2.gamma")}
        shapes |= {f"{name}.{norm}.{part}": (32,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
    shapes |= {"norm.weight": (32,), "norm.bias": (32,)}
    state = {key: arr(key, shape, 0.3, float("norm" in key and "weight" in key)) for key, shape in shapes.items()}
    mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(32)
    masks = {f"blocks.{block}.attn.qkv.bias_mask": mask for block in (0, 1)}
    return {**state, **masks, "rope_embed.periods": torch.tensor([1.0, 10.0])}


def as_timm(state: Tensors) -> Tensors:
    """The same network under the names of timm's ``..._dinov3_qkvb``."""
    names = {"storage_tokens": "reg_token", "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    renamed = {}
    for key, tensor in state.items():
        for theirs, timms in names.items():
            key = key.replace(theirs, timms)
        if key.endswith(".qkv.bias"):
            for part, bias in zip(("q_bias", "k_bias", "v_bias"), tensor.chunk(3), strict=True):
                if part != "k_bias":
                    renamed[key.replace("qkv.bias", part)] = bias
        elif "bias_mask" not in key and "rope" not in key and key != "mask_token":
            renamed[key] = tensor
    return renamed


def plain_dinov3(state: Tensors, images: torch.Tensor) -> torch.Tensor:
    """Normalized tokens ``(B, 5 + N, 32)`` of images ``(B, 3, H, W)``, with one angle a place and pair of channels."""
    grid = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    rows, columns = grid.shape[2:]
    first = torch.cat([state["cls_token"], state["storage_tokens"]], dim=1).expand(len(images), -1, -1)
    x = torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)
    turns = torch.zeros(rows * columns, 4, dtype=torch.complex64)
    for place in range(rows * columns):
        centers = (2 * (place // columns + 0.5) / rows - 1, 2 * (place % columns + 0.5) / columns - 1)
        angles = [
            2 * math.pi * center / period for center in centers for period in state["rope_embed.periods"].tolist()
        ]
        turns[place] = torch.polar(torch.ones(4), torch.tensor(angles))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def turn(x: torch.Tensor) -> torch.Tensor:  # channels i and i + d / 2 are one complex number
        turned = torch.complex(x[:, :, 5:, :4], x[:, :, 5:, 4:]) * turns
        return torch.cat([x[:, :, :5], torch.cat([turned.real, turned.imag], dim=3)], dim=2)

    for block in ("blocks.0", "blocks.1"):
        bias = state[f"{block}.attn.qkv.bias"] * torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(32)
        qkv = F.linear(norm(x, f"{block}.norm1"), state[f"{block}.attn.qkv.weight"], bias)
        query, key, value = (part.unflatten(2, (4, 8)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        weights = (turn(query) @ turn(key).transpose(2, 3) / 8**0.5).softmax(dim=3)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        attended = F.linear(attended, state[f"{block}.attn.proj.weight"], state[f"{block}.attn.proj.bias"])
        x = x + state[f"{block}.ls1.gamma"] * attended
        hidden = F.linear(norm(x, f"{block}.norm2"), state[f"{block}.mlp.fc1.weight"], state[f"{block}.mlp.fc1.bias"])
        mlp = F.linear(F.gelu(hidden), state[f"{block}.mlp.fc2.weight"], state[f"{block}.mlp.fc2.bias"])
        x = x + state[f"{block}.ls2.gamma"] * mlp
    return norm(x, "norm")


@torch.no_grad()
@pytest.mark.parametrize("layout", [dict, as_timm])
def test_features_are_those_of_a_plain_computation(dinov3, arr, tmp_path, layout):
    torch.save(layout(dinov3), tmp_path / "dinov3.pth")
    network = initialize_backbone(FrameViT(**SIZES, variant="dinov3", adapters=2), tmp_path / "dinov3.pth").eval()
    for size in ((32, 32), (48, 80)):
        clips = arr(f"clips {size}", (2, 3, 3, *size))
        expected = plain_dinov3(dinov3, clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 3))
        features = network.forward_features(clips)
        patches = features.token_map.permute(0, 2, 3, 4, 1).flatten(2, 3)
        torch.testing.assert_close(patches, expected[:, :, 5:], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(network(clips), features.class_token, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.jit.script(network)(clips), network(clips), atol=1e-5, rtol=1e-5)
    still = clips[:, :, :1]
    torch.testing.assert_close(network(still), plain_dinov3(dinov3, still[:, :, 0])[:, 0], atol=2e-5, rtol=1e-5)


def test_storage_tokens_pass_no_adapter_and_are_in_no_picture(dinov3, arr, tmp_path):
    torch.save(dinov3, tmp_path / "dinov3.pth")
    network = initialize_backbone(FrameViT(**SIZES, variant="dinov3", adapters=1), tmp_path / "dinov3.pth").eval()
    network.freeze()
    clip = arr("clip", (1, 3, 2, 32, 48))
    network(clip).sum().backward()
    learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learning
    assert all(".adapter_pre_mlp." in name for name in learning)
    with torch.no_grad():
        torch.nn.init.ones_(network.blocks[0].adapter_pre_mlp.fc2.bias)
        tokens, rotation = network.embed(clip)
        plain = FrameViT(**SIZES, variant="dinov3", adapters=0)
        plain.load_state_dict(network.state_dict(), strict=False)
        difference = network.blocks[0](tokens, rotation) - plain.eval().blocks[0](tokens, rotation)
        assert difference[:, :, :5].abs().max() < 1e-6
        assert difference[:, :, 5:].abs().mean() > 0.1
        maps = network.attention_maps(clip)
    assert maps.shape == (1, 2, 4, 7, 7)
    assert (maps.sum(dim=-1) < 1).all()


def test_needs_a_network_of_its_kind(dinov3, fill, tmp_path):
    torch.save(dinov3, tmp_path / "dinov3.pth")
    torch.save(as_timm(dinov3), tmp_path / "timm.pth")
    with pytest.raises(WeightsError, match=r"holds a DINOv3 ViT.*does not fit EndoFM\.$"):
        initialize_backbone(EndoFM(**SIZES), tmp_path / "dinov3.pth")
    for network, file in ((FrameViT(**SIZES), "dinov3.pth"), (EndoFM(**SIZES), "timm.pth")):
        with pytest.raises(WeightsError, match=rf"{file}: .*DINOv3.* FrameViT with `variant='dinov3'`\.$"):
            initialize_backbone(network, tmp_path / file)
    torch.save(fill(FrameViT(**SIZES), 0.1).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(WeightsError, match=r"vit\.pt: .* table of positions, not .*DINOv3.*`variant='timm'`\.$"):
        initialize_backbone(FrameViT(**SIZES, variant="dinov3"), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r'`variant` must be "timm", "clip" or "dinov3", but got "?\'?mae'):
        FrameViT(**SIZES, variant="mae")
