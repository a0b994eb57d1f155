# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_two_processes
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.losses import ConceptLoss, SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import ConceptFeatures, ConceptNetwork, EndoFM, StudentTeacher


def make_backbone(size: int, frames: int, depth: int) -> EndoFM:
    torch.manual_seed(0)
    return EndoFM(img_size=size, num_frames=frames, embed_dim=16, depth=depth, num_heads=2, drop_path_rate=0.0)


def matching_step(
    views: list[torch.Tensor], wrap: Any, batch_norm: bool = False, **settings: Any
) -> dict[str, torch.Tensor]:
    """Gradients and logged values of a step; with settings of the loss the second one, so that a queue was filled."""
    network = StudentTeacher(make_backbone(32, 4, 2), 12, hidden_dim=16, bottleneck_dim=8, batch_norm=batch_norm)
    loss = SpatialTemporalMatchingLoss(num_prototypes=12, **settings)
    clips = views[0].shape[0]
    if clips == 0:  # what the trainer does on a rank without a readable clip
        views = [view.new_zeros((1, *view.shape[1:])) for view in views]
    wrapped = wrap(network)  # kept until after the backward pass, where it averages the gradients
    if settings:
        loss(*(value.detach() for value in wrapped([view.flip(-1) for view in views], clips)))
    loss(*wrapped(views, clips)).backward()
    result = {name: parameter.grad for name, parameter in network.student.named_parameters() if parameter.requires_grad}
    logged = {"loss": loss.total, "entropy": loss.teacher_entropy, "pairs": loss.pairs}
    return {**result, **logged, **{name: value.clone() for name, value in loss.state_dict().items() if name != "queue"}}


def concept_step(views: list[torch.Tensor], wrap: Any) -> dict[str, torch.Tensor]:
    """The same of the second step of VCL."""
    network = ConceptNetwork(make_backbone(16, 2, 1), 10, hidden_dim=8, bottleneck_dim=4)
    wrapped, loss = wrap(network), ConceptLoss(10, 4, 8)
    loss.local_weight, loss.uses_queue = 1.0, True
    loss(ConceptFeatures(*(value.detach() for value in wrapped([view.flip(-1) for view in views]))))
    share = len(views[0]) / 2 if isinstance(wrapped, DistributedDataParallel) else 1  # as the trainer weighs it, of 4
    (loss(wrapped(views)) * share).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {**gradients, **loss.values, "queue": loss.queue.clone()}


SMALL_DATA = {"batch_norm": True, "targets": "sinkhorn", "queue_length": 8, "koleo_weight": 0.1}
VIEWS = [(2, 32), (4, 32), (2, 16), (2, 16)]
RECIPES: dict[str, tuple[Any, list[tuple[int, int]]]] = {  # a step, and frames and size of its views
    "published": (matching_step, VIEWS),
    "small data": (partial(matching_step, **SMALL_DATA), VIEWS),
    "concepts": (concept_step, [(2, 16)] * 6),
}
CASES = [(recipe, sizes) for recipe in RECIPES for sizes in ([2, 2], [3, 1], [4, 0])]
CASES.remove(("concepts", [4, 0]))  # VCL needs a video in each process


def make_views(recipe: str) -> list[torch.Tensor]:
    """Of four clips."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, frames, size, size, generator=generator) for frames, size in RECIPES[recipe][1]]


def run_rank(rank: int, folder: str) -> None:
    for recipe, sizes in CASES:
        shares = [view.split(sizes)[rank] for view in make_views(recipe)]
        torch.save(RECIPES[recipe][0](shares, DistributedDataParallel), f"{folder}/{recipe}_{sizes}_{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    run_two_processes(run_rank, str(path))
    return path


@pytest.mark.parametrize(("recipe", "sizes"), CASES)
def test_two_gloo_processes_equal_one_with_the_whole_batch(folder, recipe, sizes):
    whole = RECIPES[recipe][0](make_views(recipe), lambda network: network)
    for rank in range(2):
        part = torch.load(folder / f"{recipe}_{sizes}_{rank}.pt", weights_only=True)
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            # normalization multiplies the rounding of gradients that cancel
            atol = 1e-6 if recipe == "published" else max(1e-4, 3e-5 * value.abs().max().item())
            rtol = 0 if name == "queue" else 1e-4
            torch.testing.assert_close(part[name], value, atol=atol, rtol=rtol, equal_nan=True, msg=name)
