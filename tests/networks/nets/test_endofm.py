# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.networks.utils import convert_to_torchscript
from torch.utils._python_dispatch import TorchDispatchMode

from endofm_monai.networks.nets import EndoFM

TINY = {"img_size": 64, "num_frames": 4, "embed_dim": 48, "depth": 3, "num_heads": 4}
CLIPS = ["T4_64x64", "T8_64x64", "T2_32x32", "T3_48x48", "T4_32x64", "T1_64x64"]


@pytest.fixture(scope="module")
def tiny(golden, fill):
    return fill(EndoFM(**TINY), golden["tiny"]["cfg"]["std"])


def clip_shape(name: str) -> tuple[int, ...]:
    frames, size = name.removeprefix("T").split("_")
    return (2, 3, int(frames), *map(int, size.split("x")))


@pytest.mark.parametrize("name", CLIPS)
@torch.no_grad()
def test_class_token_equals_the_published_code(name, tiny, golden, arr):
    expected = torch.tensor(golden["tiny"]["cls"][name]).reshape(2, 48)
    torch.testing.assert_close(tiny(arr(f"x_{name}", clip_shape(name))), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_token_map_and_attention_equal_the_published_code(tiny, golden, arr):
    clips = arr("x_T2_32x32", (2, 3, 2, 32, 32))
    features = tiny.forward_features(clips)
    expected = torch.tensor(golden["tiny"]["all_T2_32x32_sample0_tok1_first8"])
    torch.testing.assert_close(features.token_map[0, :8, 0, 0, 0], expected, atol=1e-5, rtol=0)
    assert float(features.class_token.sum() + features.token_map.sum()) == pytest.approx(
        golden["tiny"]["all_sum"], abs=1e-4
    )
    torch.testing.assert_close(features.class_token, tiny(clips), atol=1e-5, rtol=0)
    attention = tiny.attention_maps(clips)
    assert attention.shape == (2, 2, 4, 5, 5)
    expected = torch.tensor(golden["tiny"]["attn_first5"])
    torch.testing.assert_close(attention[0, 0, 0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.full_size
@torch.no_grad()
def test_base_equals_the_published_code(golden, arr, fill):
    with torch.device("meta"):  # all weights come from the recipe
        backbone = EndoFM.from_preset("base")
    fill(backbone.to_empty(device="cpu"), golden["vitb"]["std"])
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 121_258_752
    assert len(backbone.state_dict()) == 247
    for frames, size in ((8, 224), (2, 96), (16, 96)):
        name = f"big_T{frames}_{size}"
        shape = (1, 3, frames, size, size)
        class_token = backbone(arr(name, shape))[0]
        expected = torch.tensor(golden["vitb"]["cls_first8"][f'arr("{name}",(1,3,{frames},{size},{size}))'])
        torch.testing.assert_close(class_token[:8], expected, atol=1e-4, rtol=0)
        assert float(class_token.norm()) == pytest.approx(golden["vitb"]["norm"][f"T{frames}_{size}"], abs=1e-3)


def test_state_dict_has_the_published_names():
    names = set(EndoFM(**TINY).state_dict())
    block = {
        f"{layer}.{kind}"
        for layer in (
            *("norm1", "attn.qkv", "attn.proj", "temporal_norm1", "temporal_attn.qkv", "temporal_attn.proj"),
            *("temporal_fc", "norm2", "mlp.fc1", "mlp.fc2"),
        )
        for kind in ("weight", "bias")
    }
    stem = {"cls_token", "pos_embed", "time_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert names == stem | {"norm.weight", "norm.bias"} | {f"blocks.{i}.{key}" for i in range(3) for key in block}


@pytest.mark.parametrize("shape", [(1, 3, 1, 16, 16), (1, 3, 5, 64, 16), (2, 3, 3, 16, 80), (1, 3, 2, 16, 256)])
@torch.no_grad()
def test_takes_any_number_of_frames_and_patches(tiny, shape):
    features = tiny.forward_features(torch.randn(shape))
    assert features.class_token.shape == (shape[0], 48)
    assert features.token_map.shape == (shape[0], 48, shape[2], shape[3] // 16, shape[4] // 16)
    assert features.token_map.isfinite().all()


@torch.no_grad()
def test_grid_with_the_patches_of_the_table_but_another_shape_is_resampled(tiny):
    """The published code takes the 4x4 table as it is for 2x8 patches: then swapping rows in the table matters."""
    clip = torch.randn(1, 3, 4, 32, 128)
    network = EndoFM(**TINY).eval()
    network.load_state_dict(tiny.state_dict())
    unused = [4, 5, 6, 7, 12, 13, 14, 15]  # rows 1 and 3: two rows of patches take rows 0 and 2
    network.pos_embed[:, [1 + index for index in unused]] += 10
    torch.testing.assert_close(network(clip), tiny(clip))


@pytest.mark.parametrize("height", [0, 40])
def test_size_that_is_no_multiple_of_the_patch_is_refused(tiny, height):
    with pytest.raises(ValueError, match=f"multiples of 16 pixels, got {height}x32"):
        tiny(torch.zeros(1, 3, 2, height, 32))


def test_constructor_names_wrong_arguments():
    with pytest.raises(ValueError, match="`img_size` must be a multiple of `patch_size`=16, but got 100"):
        EndoFM(**{**TINY, "img_size": 100})
    with pytest.raises(ValueError, match="`num_heads`, but got 48 and 5"):
        EndoFM(**{**TINY, "num_heads": 5})
    with pytest.raises(ValueError, match="`preset` must be one of .*tiny.* but got 'huge'"):
        EndoFM.from_preset("huge")


def test_initial_temporal_branch_adds_nothing():
    network = EndoFM(**TINY)
    assert all(
        block.temporal_fc.weight.abs().max() == 0 == block.temporal_fc.bias.abs().max() for block in network.blocks
    )
    assert network.time_embed.abs().max() == 0
    assert float(network.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)


@torch.no_grad()
def test_without_a_temporal_branch_frames_are_encoded_one_by_one():
    full, spatial = EndoFM(**TINY).eval(), EndoFM(**TINY, temporal=False).eval()
    state = full.state_dict()
    names = {name for name in state if "temporal" not in name and name != "time_embed"}
    assert set(spatial.state_dict()) == names
    spatial.load_state_dict({name: state[name] for name in names})
    clip = torch.randn(2, 3, 3, 32, 48)
    assert torch.equal(spatial(clip), full(clip))  # whose temporal branch adds nothing yet
    together = spatial.forward_features(clip[:, :, :1]).token_map
    torch.testing.assert_close(together, full.forward_features(clip[:, :, :1]).token_map)
    torch.testing.assert_close(torch.jit.script(spatial)(clip), spatial(clip))


def test_drop_path_rises_from_zero_and_acts_on_rows_while_training(tiny):
    assert [float(1 - block.drop_path.keep) for block in tiny.blocks] == pytest.approx([0, 0.05, 0.1])
    block = EndoFM(**TINY, drop_path_rate=1.0).blocks[-1].train()
    tokens = torch.randn(2, 1 + 4 * 3, 48)
    torch.testing.assert_close(block(tokens, 3), tokens)  # every row of every branch is dropped, temporal_fc is zero
    block.temporal_fc.bias.data.fill_(1.0)
    moved = block(tokens, 3) - tokens  # a dropped temporal row still gets the bias of temporal_fc, as published
    torch.testing.assert_close(moved[:, 1:], torch.ones(2, 12, 48))
    torch.testing.assert_close(moved[:, :1], torch.zeros(2, 1, 48))


class ProductCounter(TorchDispatchMode):
    """Counts matrix products and attentions."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.number += name in ("addmm", "mm") or (name.startswith("_scaled_dot") and not name.endswith("backward"))
        return func(*args, **(kwargs or {}))


def test_activation_checkpointing_changes_no_gradient_and_selective_repeats_the_first_product_of_mlps(tiny):
    clip = torch.randn(1, 3, 2, 32, 32)
    gradients, products = [], []
    for checkpointing in (False, "selective", True):
        network = EndoFM(**TINY, drop_path_rate=0.5, activation_checkpointing=checkpointing).train()
        network.load_state_dict(tiny.state_dict())
        torch.manual_seed(0)
        with ProductCounter() as counter:
            network(clip).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
        products.append(counter.number)
    for plain, *recomputed in zip(*gradients, strict=True):
        for gradient in recomputed:
            torch.testing.assert_close(plain, gradient, atol=1e-5, rtol=1e-5)
    assert products[0] + TINY["depth"] == products[1] < products[2]


def test_an_unknown_way_of_checkpointing_is_refused():
    with pytest.raises(ValueError, match="`activation_checkpointing` must be True, False or .*, but got 'all'"):
        EndoFM(**TINY, activation_checkpointing="all")


@torch.no_grad()
def test_torchscript_gives_the_same(tiny):
    scripted = convert_to_torchscript(tiny)
    for frames, size in ((4, 64), (3, 32)):
        clip = torch.randn(1, 3, frames, size, size)
        torch.testing.assert_close(scripted(clip), tiny(clip))
        torch.testing.assert_close(scripted.forward_features(clip).token_map, tiny.forward_features(clip).token_map)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 8), (0.8, 3), (0.99, 1)])
def test_dropped_tokens_are_whole_positions_and_the_others_keep_theirs(share, kept):
    network = EndoFM(img_size=64, num_frames=3, embed_dim=12, depth=1, num_heads=2, token_drop=share).train()
    tokens = network.embed(torch.randn(2, 3, 3, 64, 64))
    left = network.drop_tokens(tokens, 3)
    assert left.shape == (2, 1 + kept * 3, 12)
    assert left[:, 0].equal(tokens[:, 0])
    for clip in range(2):
        columns = {tuple(column.flatten().tolist()) for column in tokens[clip, 1:].unflatten(0, (16, 3))}
        positions = [tuple(column.flatten().tolist()) for column in left[clip, 1:].unflatten(0, (kept, 3))]
        assert len(set(positions)) == kept
        assert columns.issuperset(positions)


def test_tokens_are_dropped_while_training_only():
    network = EndoFM(img_size=64, num_frames=3, embed_dim=12, depth=2, num_heads=2, drop_path_rate=0, token_drop=0.5)
    clips = torch.randn(2, 3, 3, 64, 64)
    whole = network.eval()(clips)
    assert network(clips).equal(whole)
    assert not network.train()(clips).allclose(whole)
    with pytest.raises(ValueError, match="token_drop"):
        EndoFM(token_drop=1.0)
