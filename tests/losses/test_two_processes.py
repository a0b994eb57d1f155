# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import run_two_processes
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher

SHAPES = [(2, 32), (4, 32), (2, 16), (2, 16)]


RECIPES = {  # arguments of the network and of the loss
    "published": ({}, {}),
    "small data": ({"batch_norm": True}, {"targets": "sinkhorn", "queue_length": 8, "koleo_weight": 0.1}),
}


def one_step(recipe: str, views: list[torch.Tensor], wrap=lambda network: network) -> dict[str, torch.Tensor]:
    """Gradients and logged values of the second of two batches, so that a queue has been filled."""
    torch.manual_seed(0)
    backbone = EndoFM(img_size=32, num_frames=4, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.0)
    network = StudentTeacher(backbone, num_prototypes=12, hidden_dim=16, bottleneck_dim=8, **RECIPES[recipe][0])
    loss = SpatialTemporalMatchingLoss(num_prototypes=12, **RECIPES[recipe][1])
    clips = views[0].shape[0]
    if clips == 0:  # what the trainer does on a rank without a readable clip
        views = [view.new_zeros((1, *view.shape[1:])) for view in views]
    wrapped = wrap(network)  # kept until after the backward pass, where it averages the gradients
    if recipe != "published":
        loss(*(value.detach() for value in wrapped([view.flip(-1) for view in views], clips)))
    loss(*wrapped(views, clips)).backward()
    result = {name: parameter.grad for name, parameter in network.student.named_parameters() if parameter.requires_grad}
    logged = {"loss": loss.total, "entropy": loss.teacher_entropy, "pairs": loss.pairs}
    return {**result, **logged, **{name: value.clone() for name, value in loss.state_dict().items() if name != "queue"}}


def make_views(clips: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(clips, 3, frames, size, size, generator=generator) for frames, size in SHAPES]


SIZES = [[2, 2], [3, 1], [4, 0]]


def run_rank(rank: int, folder: str) -> None:
    for recipe in RECIPES:
        for sizes in SIZES:
            shares = [view.split(sizes)[rank] for view in make_views(sum(sizes))]
            torch.save(one_step(recipe, shares, DistributedDataParallel), f"{folder}/{recipe}_{sizes}_{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    run_two_processes(run_rank, str(path))
    return path


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_two_gloo_processes_equal_one_with_the_whole_batch(folder, sizes, recipe):
    whole = one_step(recipe, make_views(4))
    for rank in range(2):
        part = torch.load(folder / f"{recipe}_{sizes}_{rank}.pt", weights_only=True)
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            # normalization multiplies the rounding of gradients that cancel
            atol = 1e-6 if recipe == "published" else max(1e-4, 3e-5 * value.abs().max().item())
            torch.testing.assert_close(part[name], value, atol=atol, rtol=1e-4, equal_nan=True, msg=name)
