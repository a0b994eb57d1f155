# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.nets import EndoFM

SHAPES = [(2, 4, 4, 4), (1, 2, 2, 2), (3, 4, 2, 2), (2, 1, 2, 4), (2, 4, 4, 4)]  # clips, frames, rows, columns


def make(**arguments) -> EndoFM:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "num_frames": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
    network = EndoFM(**{**size, "drop_path_rate": 0.0, **arguments})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.train()


def make_clips(*more: tuple[int, int, int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [*SHAPES, *more]
    return [torch.randn(b, 3, t, 8 * rows, 8 * columns, generator=generator) for b, t, rows, columns in shapes]


# one frame leaves a remainder of the joined sequences, three frames cannot be joined to them
@pytest.mark.parametrize("more", [[], [(1, 1, 1, 1)], [(1, 3, 2, 2), (1, 16, 1, 1)]])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"adapters": 2, "adapter_dim": 4},
        {"temporal": False},
        {"activation_checkpointing": True},
        {"activation_checkpointing": "selective"},
    ],
)
def test_values_and_gradients_are_those_of_each_batch_alone(arguments, more):
    alone, packed = make(**arguments), make(**arguments)
    clips = make_clips(*more)
    expected, found = [alone(batch) for batch in clips], packed.forward_packed(clips)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-6)
    weights = torch.randn(sum(map(len, clips)), 16)
    for features in (expected, found):
        (torch.cat(features) * weights).sum().backward()
    for one, other in zip(alone.parameters(), packed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-5 * float(one.grad.abs().max()), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*checkpoint")
def test_a_network_that_recomputes_selectively_compiles_to_one_graph():
    gradients = []
    for compiles in (False, True):
        network = make(activation_checkpointing="selective", depth=2)
        run = network.forward_packed
        if compiles:
            run = torch.compile(run, backend="aot_eager", fullgraph=True)
        torch.cat(run(make_clips())).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-4)


def test_gradients_are_the_same_every_time():
    runs = []
    for _ in range(2):
        network = make()
        torch.cat(network.forward_packed(make_clips())).square().sum().backward()
        runs.append([parameter.grad for parameter in network.parameters()])
    assert all(map(torch.equal, *runs))


@torch.no_grad()
def test_drop_path_drops_the_same_rows_in_distribution():
    clips = [batch.repeat(500, 1, 1, 1, 1) for batch in make_clips()[1:3]]
    network = make(depth=2, drop_path_rate=0.3)
    alone = torch.cat([network(batch).unflatten(0, (500, -1)) for batch in clips], dim=1)
    packed = torch.cat([features.unflatten(0, (500, -1)) for features in network.forward_packed(clips)], dim=1)
    deviation = alone.std(dim=0)
    assert ((packed.mean(dim=0) - alone.mean(dim=0)).abs() < 5 * deviation * (2 / 500) ** 0.5).all()
    torch.testing.assert_close(packed.std(dim=0), deviation, rtol=0.25, atol=0)
    everything = make(depth=2, drop_path_rate=1.0)
    for batch, features in zip(clips, everything.forward_packed(clips), strict=True):
        torch.testing.assert_close(features, everything(batch), atol=1e-6, rtol=1e-6)


def test_dropped_tokens_take_no_part():
    network = make(token_drop=0.5)
    seen = []
    network.blocks[0].temporal_norm1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    assert [len(tokens) for tokens in network.forward_packed(make_clips())] == [2, 1, 3, 2, 2]
    assert seen == [2 * 8 * 4 + 1 * 2 * 2 + 3 * 2 * 4 + 2 * 4 * 1 + 2 * 8 * 4]
