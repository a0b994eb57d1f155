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


def one_step(views: list[torch.Tensor], wrap=lambda network: network) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    backbone = EndoFM(img_size=32, num_frames=4, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.0)
    network = StudentTeacher(backbone, num_prototypes=12, hidden_dim=16, bottleneck_dim=8)
    loss = SpatialTemporalMatchingLoss(num_prototypes=12)
    clips = views[0].shape[0]
    if clips == 0:  # what the trainer does on a rank without a readable clip
        views = [view.new_zeros((1, *view.shape[1:])) for view in views]
    wrapped = wrap(network)  # kept until after the backward pass, where it averages the gradients
    student, teacher = wrapped(views)
    loss(student[:, :clips], teacher[:, :clips]).backward()
    result = {name: parameter.grad for name, parameter in network.student.named_parameters() if parameter.requires_grad}
    return {**result, "loss": loss.total, "center": loss.center, "entropy": loss.teacher_entropy, "pairs": loss.pairs}


def make_views(clips: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(clips, 3, frames, size, size, generator=generator) for frames, size in SHAPES]


def run_rank(rank: int, folder: str, sizes: list[int]) -> None:
    shares = [view.split(sizes)[rank] for view in make_views(sum(sizes))]
    torch.save(one_step(shares, DistributedDataParallel), f"{folder}/{rank}.pt")


@pytest.mark.parametrize("sizes", [[2, 2], [3, 1], [4, 0]])
def test_two_gloo_processes_equal_one_with_the_whole_batch(tmp_path, sizes):
    run_two_processes(run_rank, str(tmp_path), sizes)
    whole = one_step(make_views(4))
    for rank in range(2):
        part = torch.load(Path(tmp_path) / f"{rank}.pt", weights_only=True)
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(part[name], value, atol=1e-6, rtol=1e-4, equal_nan=True, msg=name)
