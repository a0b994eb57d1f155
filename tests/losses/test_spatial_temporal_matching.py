# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.losses.spatial_temporal_matching import enqueue, koleo, sinkhorn


@pytest.fixture
def logits(arr):
    return arr("student_logits", (10, 2, 40)), arr("teacher_logits", (2, 2, 40))


def test_two_steps_equal_the_published_code(golden, logits):
    loss = SpatialTemporalMatchingLoss(num_prototypes=40)
    assert float(loss(*logits)) == pytest.approx(golden["loss"]["loss_step1_center0"], abs=1e-5)
    expected = torch.tensor(golden["loss"]["center_after_step1"])
    torch.testing.assert_close(loss.center[0], expected, atol=1e-5, rtol=0)
    assert float(loss(*logits)) == pytest.approx(golden["loss"]["loss_step2"], abs=1e-5)


def test_equals_the_loop_of_its_definition():
    student, teacher = torch.randn(5, 3, 7), torch.randn(2, 3, 7)
    loss = SpatialTemporalMatchingLoss(num_prototypes=7, student_temperature=0.2, teacher_temperature=0.05)
    loss.center = torch.randn(1, 7)
    terms = [
        -(((teacher[i] - loss.center) / 0.05).softmax(-1) * F.log_softmax(student[v] / 0.2, -1)).sum(-1).mean()
        for i in range(2)
        for v in range(5)
        if i != v
    ]
    assert float(loss(student, teacher)) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-6)
    assert float(loss.total) == pytest.approx(float(loss.cross_view + loss.dynamic_motion), rel=1e-6)


def test_accumulated_calls_move_the_center_once_by_the_mean(logits):
    student, teacher = logits
    whole, parts = SpatialTemporalMatchingLoss(40), SpatialTemporalMatchingLoss(40)
    whole(student, teacher)
    parts(student[:, :1], teacher[:, :1], update_center=False)
    assert parts.center.abs().max() == 0
    parts(student[:, 1:], teacher[:, 1:])
    torch.testing.assert_close(parts.center, whole.center)
    before = whole.center.clone()
    whole.eval()(student, teacher)
    assert whole.center.equal(before)


def test_batch_without_a_clip_gives_zero_loss_with_zero_gradient():
    loss = SpatialTemporalMatchingLoss(7)
    student = torch.randn(4, 1, 7, requires_grad=True)
    value = loss(student[:, :0], torch.randn(2, 0, 7))
    value.backward()
    assert float(value.detach()) == 0
    assert student.grad.abs().max() == 0
    assert loss.center.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_computed_in_float32_and_stays_finite(dtype):
    loss = SpatialTemporalMatchingLoss(64)
    student, teacher = torch.randn(10, 2, 64).to(dtype) * 100, torch.randn(2, 2, 64).to(dtype) * 100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(student, teacher)
    exact = SpatialTemporalMatchingLoss(64)(student.float(), teacher.float())
    assert low.dtype == torch.float32
    assert low.isfinite()
    assert float(low) == float(exact)


def test_teacher_entropy_is_in_nats():
    loss = SpatialTemporalMatchingLoss(40)
    loss(torch.randn(4, 2, 40), torch.zeros(2, 2, 40))
    assert float(loss.teacher_entropy) == pytest.approx(math.log(40), rel=1e-6)
    one_hot = F.one_hot(torch.tensor([[3, 4], [5, 6]]), 40) * 1000.0
    loss(torch.randn(4, 2, 40), one_hot)
    assert float(loss.teacher_entropy) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((4, 2, 6), (2, 2, 7)), ((1, 2, 7), (2, 2, 7)), ((4, 3, 7), (2, 2, 7)), ((4, 2, 7), (3, 2, 7))],
)
def test_shapes_that_do_not_fit_are_named(student, teacher):
    with pytest.raises(ValueError, match=r"Expected student logits \(V, B, 7\).*but got \("):
        SpatialTemporalMatchingLoss(7)(torch.zeros(student), torch.zeros(teacher))


def test_queue_balances_the_targets_with_earlier_clips():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 3, 7, generator=generator) for _ in range(3)]
    loss = SpatialTemporalMatchingLoss(7, targets="sinkhorn", queue_length=8)
    for teacher in batches:
        loss(torch.randn(4, 3, 7), teacher)
    rows = torch.cat([batch.flatten(0, 1) for batch in reversed(batches)])
    torch.testing.assert_close(loss.queue, rows[:8])
    now = torch.randn(2, 3, 7)
    expected = sinkhorn(torch.cat([now.flatten(0, 1), rows[:8]]), 0.04)[:6].view(2, 3, 7)
    before = loss.queue.clone()
    loss.eval()(torch.randn(4, 3, 7), now)
    assert float(loss.teacher_entropy) == pytest.approx(float(torch.special.entr(expected).sum(-1).mean()), rel=1e-5)
    assert loss.queue.equal(before)  # not in training
    again = SpatialTemporalMatchingLoss(7, targets="sinkhorn", queue_length=8)
    again.load_state_dict(loss.state_dict())
    assert float(again.eval()(batches[0].repeat(2, 1, 1), now)) == float(loss(batches[0].repeat(2, 1, 1), now))


def test_koleo_is_the_nearest_distance_and_drives_rows_apart():
    square = torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, -1]], requires_grad=True)
    assert float(koleo(square.detach())) == pytest.approx(-math.log(2) / 2, abs=1e-6)
    close = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]], requires_grad=True)
    koleo(close).backward()
    moved = F.normalize(close - 0.01 * close.grad, dim=1)
    assert (moved[0] - moved[1]).norm() > (close[0] - F.normalize(close[1], dim=0)).norm()
    assert float(koleo(torch.ones(1, 3))) == 0
    equal = torch.ones(3, 4, requires_grad=True)
    koleo(equal).backward()
    assert equal.grad.isfinite().all()


def test_koleo_enters_the_loss_by_its_weight_but_not_the_total(logits):
    tokens = torch.randn(2, 2, 16)
    plain, weighted = SpatialTemporalMatchingLoss(40), SpatialTemporalMatchingLoss(40, koleo_weight=0.3)
    expected = float(plain(*logits)) + 0.3 * float(torch.stack([koleo(tokens[0]), koleo(tokens[1])]).mean())
    assert float(weighted(*logits, tokens)) == pytest.approx(expected, rel=1e-6)
    assert float(weighted.total) == float(plain.total)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'center' or 'sinkhorn', but got 'centre'"):
        SpatialTemporalMatchingLoss(7, targets="centre")
    with pytest.raises(ValueError, match="queue_length"):
        SpatialTemporalMatchingLoss(7, queue_length=4)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[0.1, 0], [0, 0.1]], [[0.880797, 0.119203], [0.119203, 0.880797]]),
        ([[0.1, 0], [0.1, 0]], [[0.5, 0.5], [0.5, 0.5]]),
        ([[0.2, 0], [0.1, 0]], [[0.727212, 0.272788], [0.265129, 0.734871]]),
        ([[0.2, 0], [0.1, 0], [0, 0]], [[0.863962, 0.136038], [0.462221, 0.537779], [0.1042, 0.8958]]),
    ],
)
def test_sinkhorn_gives_the_values_of_its_published_form(logits, expected):
    targets = sinkhorn(torch.tensor(logits), temperature=0.05)
    torch.testing.assert_close(targets, torch.tensor(expected), atol=1e-5, rtol=0)


def test_sinkhorn_uses_all_prototypes_alike_and_takes_logits_of_any_size():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    targets = sinkhorn(logits, 0.5, iterations=50)
    torch.testing.assert_close(targets.sum(dim=0), torch.full((8,), 8.0))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    huge = sinkhorn((logits * 1e4).half(), 0.04)  # overflows as an exponential
    assert huge.isfinite().all()
    torch.testing.assert_close(huge.sum(dim=1), torch.ones(64))


def test_earlier_rows_balance_the_targets_and_have_none():
    rows = torch.tensor([[0.2, 0.0], [0.1, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(sinkhorn(rows[:1], 0.05, rows[1:]), sinkhorn(rows, 0.05)[:1])
    assert sinkhorn(rows, 0.05, rows[:0]).equal(sinkhorn(rows, 0.05))
    not_held = torch.tensor([[1e30, -1e30], [0.0, 0.0]])
    filling = sinkhorn(rows[:1], 0.05, torch.cat([rows[1:], not_held]), held=torch.tensor(2))
    torch.testing.assert_close(filling, sinkhorn(rows, 0.05)[:1])


def test_the_oldest_rows_fall_out_of_a_queue():
    queue, count = torch.full((3, 1), -1.0), torch.tensor(0)
    for rows, expected, held in [([1], [1, -1, -1], 1), ([2, 3], [2, 3, 1], 3), ([4], [4, 2, 3], 3)]:
        enqueue(queue, count, torch.tensor(rows).float().unsqueeze(1))
        assert queue.flatten().tolist() == expected
        assert int(count) == held
