# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.networks.nets.student_teacher import ProjectionHead, SyncedBatchNorm

SHAPES = [(8, 64), (16, 64), *[(frames, 32) for frames in (2, 2, 4, 4, 8, 8, 16, 16)]]


def make_pair(**arguments) -> StudentTeacher:
    backbone = EndoFM(img_size=64, num_frames=4, embed_dim=48, depth=3, num_heads=4)
    return StudentTeacher(backbone, num_prototypes=40, hidden_dim=32, bottleneck_dim=16, **arguments)


@pytest.fixture
def views(arr):
    return [arr(f"view{i}", (2, 3, frames, size, size)) for i, (frames, size) in enumerate(SHAPES)]


@torch.no_grad()
def test_whole_step_equals_the_published_code(views, golden, fill):
    pair = make_pair()
    for network in (pair.student, pair.teacher):
        fill(network.backbone, 0.1)
        fill(network.head, 0.3)
    expected = golden["ssl_step"]
    student, teacher, _ = pair.eval()(views)
    torch.testing.assert_close(student.flatten()[:10], torch.tensor(expected["student_out_first10"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(teacher.flatten()[:10], torch.tensor(expected["teacher_out_first10"]), atol=1e-5, rtol=0)
    loss = SpatialTemporalMatchingLoss(num_prototypes=40)
    assert float(loss(student, teacher)) == pytest.approx(expected["loss"], abs=1e-5)
    assert float(loss.dynamic_motion) == pytest.approx(sum(expected["L_dm_terms"]) / 18, abs=1e-5)
    cross_view = torch.tensor(expected["L_cv_terms"])
    assert float(loss.cross_view) == pytest.approx(float(cross_view.sum()) / 18, abs=1e-5)
    torch.testing.assert_close(loss.pairs[:, 2:], cross_view, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.pairs[[0, 1], [1, 0]], torch.tensor(expected["L_dm_terms"]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_views_run_together_and_keep_their_order(views):
    pair = make_pair().eval()
    together = pair.student(views)
    one_by_one = torch.cat([pair.student([view]) for view in views])
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=0)
    shuffled = [9, 2, 0, 8, 1]
    torch.testing.assert_close(pair.student([views[i] for i in shuffled]), together[shuffled], atol=1e-6, rtol=0)


def test_teacher_has_no_gradient_and_no_drop_path(views):
    pair = make_pair().train()
    assert pair.student.training
    assert not any(module.training for module in pair.teacher.modules())
    student, teacher, _ = pair(views)
    assert not teacher.requires_grad
    student.sum().backward()
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    trained = [name for name, parameter in pair.student.named_parameters() if parameter.grad is None]
    assert trained == ["head.last_layer.parametrizations.weight.original0"]


def test_teacher_follows_the_student_by_its_momentum():
    pair = make_pair(teacher_momentum=0.75)
    before = {name: value.clone() for name, value in pair.teacher.named_parameters()}
    for parameter in pair.student.parameters():
        parameter.data += 1
    pair.update_teacher()
    for name, value in pair.teacher.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25, atol=1e-6, rtol=0)


HEAD = {"embed_dim": 48, "num_prototypes": 40, "hidden_dim": 32, "bottleneck_dim": 16}


@torch.no_grad()
def test_logits_of_the_head_equal_the_published_code(golden, arr, fill):
    head = fill(ProjectionHead(**HEAD), golden["head"]["cfg"]["std"])
    expected = torch.tensor(golden["head"]["out"]).reshape(3, 40)
    torch.testing.assert_close(head(arr("head_in", (3, 48))), expected, atol=1e-5, rtol=0)


def test_published_size_of_the_head():
    with torch.device("meta"):
        head = ProjectionHead(768, 65_536)
    assert sum(parameter.numel() for parameter in head.parameters()) == 23_138_560
    frozen = [parameter.numel() for parameter in head.parameters() if not parameter.requires_grad]
    assert frozen == [65_536]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_are_cosines_in_float32(dtype):
    head = ProjectionHead(**HEAD)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = head(torch.randn(64, 48) * 100)
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= 1 + 1e-6
    norms = head.last_layer.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(40))


def test_batch_normalization_of_the_head_is_torchs_on_one_process():
    x = 5 + torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = SyncedBatchNorm(6), torch.nn.BatchNorm1d(6)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
    assert ours(x[:0]).shape == (0, 6)


def test_small_data_head_keeps_few_clips_apart(views):
    torch.manual_seed(0)
    plain, normalized = make_pair(), make_pair(batch_norm=True)
    clips = [view.repeat(4, 1, 1, 1, 1) + 0.01 * torch.randn(4 * len(view), *view.shape[1:]) for view in views]
    spread = [pair.eval()(clips)[1].std(dim=1).mean() for pair in (plain, normalized)]
    assert spread[1] > 10 * spread[0]


def test_teacher_sees_all_tokens():
    pair = StudentTeacher(EndoFM.from_preset("tiny", depth=1, img_size=32, token_drop=0.5), num_prototypes=4)
    assert (pair.student.backbone.token_drop, pair.teacher.backbone.token_drop) == (0.5, 0)
