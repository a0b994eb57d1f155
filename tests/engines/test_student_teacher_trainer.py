# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents

from endofm_monai.data import collate_clips
from endofm_monai.engines import PrepareViews
from endofm_monai.handlers import ScheduleHandler
from endofm_monai.optimizers import CosineSchedule
from endofm_monai.transforms import RandAugmentViewsd, ViewPlan


def weights_of(trainer):
    values = {**trainer.network.state_dict(), "center": trainer.loss_function.center}
    return {name: value.clone() for name, value in values.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


@pytest.fixture(scope="module")
def whole_run(make_trainer):
    """Weights of a training that was never interrupted, by its ``accumulation``."""

    @functools.cache
    def run(accumulation, few_clips=False):
        trainer = make_trainer(accumulation=accumulation, few_clips=few_clips)
        trainer.run()
        return weights_of(trainer)

    return run


def test_training_moves_the_student_and_the_teacher_follows(make_trainer):
    trainer = make_trainer(epochs=2)
    before = weights_of(trainer)
    trainer.run()
    after = weights_of(trainer)
    frozen = {"head.last_layer.parametrizations.weight.original0"}
    for part in ("student", "teacher"):
        moved = {
            name.removeprefix(f"{part}.")
            for name in before
            if name.startswith(part) and not torch.equal(before[name], after[name])
        }
        assert moved == {name.removeprefix(f"{part}.") for name in before if name.startswith(part)} - frozen
    assert trainer.state.iteration == 10
    assert torch.isfinite(trainer.state.output["loss"])


def test_last_layer_is_frozen_in_the_first_epoch(make_trainer):
    trainer = make_trainer(epochs=1)
    before = weights_of(trainer)
    trainer.run()
    name = "student.head.last_layer.parametrizations.weight.original1"
    torch.testing.assert_close(weights_of(trainer)[name], before[name])


@pytest.mark.parametrize(("workers", "accumulation", "few_clips"), [(0, 1, False), (2, 2, False), (0, 1, True)])
def test_resume_after_two_of_four_epochs_is_bit_identical(
    make_trainer, whole_run, tmp_path, workers, accumulation, few_clips
):
    settings = {"workers": workers, "accumulation": accumulation, "few_clips": few_clips}
    first = make_trainer(tmp_path, max_epochs=2, **settings)
    first.run()
    second = make_trainer(tmp_path, resume=True, **settings)
    second.run()
    assert second.state.epoch == 4
    assert_equal(weights_of(second), whole_run(accumulation, few_clips))


class KillAt:
    """Sends the process, and its workers as a job scheduler does, a signal in the middle of an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def attach(self, engine):
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine):
        if engine.state.iteration == self.iteration:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)


@pytest.mark.parametrize(("accumulation", "stopped_at", "workers"), [(1, 7, 0), (2, 7, 2), (3, 8, 0)])
def test_sigterm_saves_after_the_step_and_resumes_within_the_epoch(
    make_trainer, whole_run, tmp_path, accumulation, stopped_at, workers
):
    """Epochs have 5 iterations; the signal comes in iteration 6 or 7: the step's last iteration ends the run."""
    kill_at = 6 if accumulation > 2 else 7  # by iteration 7 both workers of the epoch have started
    stopped = make_trainer(tmp_path, accumulation=accumulation, workers=workers, handlers=[KillAt(kill_at)])
    stopped.run()
    assert stopped.state.iteration == stopped_at
    resumed = make_trainer(tmp_path, accumulation=accumulation, resume=True)
    resumed.run()
    assert resumed.state.iteration == 20
    assert_equal(weights_of(resumed), whole_run(accumulation))


def test_accumulation_equals_the_larger_batch(make_trainer):
    def first_step(**settings):
        trainer = make_trainer(epochs=1, clips=4, drop_path_rate=0.0, **settings)
        trainer.run()
        gradients = [parameter.grad for parameter in trainer.network.student.backbone.parameters()]
        return gradients, trainer.loss_function.center

    whole, whole_center = first_step(batch_size=4)
    parts, parts_center = first_step(batch_size=2, accumulation=2)
    torch.testing.assert_close(parts_center, whole_center, atol=1e-6, rtol=0)
    for first, second in zip(whole, parts, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-4)


def test_batch_without_a_readable_clip_teaches_nothing(make_trainer):
    trainer = make_trainer(epochs=1, clips=[{"clip": None}] * 4)
    before = weights_of(trainer)
    trainer.run()
    assert "loss" not in trainer.state.output
    assert_equal(weights_of(trainer), before)


def test_schedule_depends_on_the_step_not_on_the_iteration():
    optimizer = torch.optim.SGD(
        [
            {"params": [torch.zeros(1, requires_grad=True)], "decay": True},
            {"params": [torch.zeros(1, requires_grad=True)], "decay": False, "weight_decay": 0.0},
        ],
        lr=1.0,
    )
    handler = ScheduleHandler(optimizer, "weight_decay", CosineSchedule(1.0, 0.0))
    seen = []
    for iteration in range(1, 11):  # 2 epochs of 5 iterations, 3 steps each
        handler._set(
            SimpleNamespace(
                accumulation_steps=2, state=SimpleNamespace(iteration=iteration, epoch_length=5, max_epochs=2)
            )
        )
        seen.append(optimizer.param_groups[0]["weight_decay"])
        assert optimizer.param_groups[1]["weight_decay"] == 0
    cosine = [CosineSchedule(1.0, 0.0)(step, 3, 2) for step in range(6)]
    assert seen == [cosine[step] for step in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)]


def test_lower_precision_trains(make_trainer):
    trainer = make_trainer(epochs=2, amp=True, amp_kwargs={"dtype": torch.bfloat16})
    trainer.run()
    assert all(value.isfinite().all() for value in weights_of(trainer).values())
    assert trainer.network.student.backbone.norm.weight.dtype == torch.float32


def test_compiled_step_learns_what_an_eager_one_does(make_trainer):
    eager, compiled = (
        make_trainer(
            epochs=2,
            max_epochs=1,
            clips=6,
            compile=on,
            compile_kwargs={"backend": "aot_eager", "fullgraph": True},
        )
        for on in (False, True)
    )
    for trainer in (eager, compiled):
        torch.manual_seed(1)
        trainer.run()
    for name, value in weights_of(compiled).items():
        torch.testing.assert_close(value, weights_of(eager)[name], atol=1e-5, rtol=1e-4, msg=name)


def test_loader_without_a_batch_is_refused(make_trainer):
    with pytest.raises(ValueError, match="An epoch has no batch"):
        make_trainer(clips=0)


PLAN = ViewPlan((3,), (2, 2), global_size=16, local_size=8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def raw_clips():
    generator = torch.Generator().manual_seed(0)
    for seed, height in ((3, 20), (4, 24)):
        clip = torch.randint(0, 256, (3, 7, height, 26), dtype=torch.uint8, generator=generator)
        yield {"image": clip, "seed": seed}


@pytest.mark.parametrize("device", DEVICES)
def test_views_are_the_same_made_in_a_worker_or_on_the_device(device):
    augment = RandAugmentViewsd("image", PLAN)
    prepare = PrepareViews(augment)
    loader = DataLoader(Dataset(list(raw_clips()), augment), batch_size=2, num_workers=1, collate_fn=collate_clips)
    in_worker, labels = prepare(next(iter(loader)), device, non_blocking=True)
    on_device, _ = prepare(collate_clips(list(raw_clips())), device, non_blocking=True)
    assert labels is None
    assert [view.shape for view in in_worker] == [(2, 3, 3, 16, 16), (2, 3, 2, 8, 8), (2, 3, 2, 8, 8)]
    for view, other in zip(in_worker, on_device, strict=True):
        assert view.device.type == other.device.type == device
        torch.testing.assert_close(view, other, atol=1e-5 if device == "cpu" else 1e-3, rtol=0)


def test_a_batch_without_clips_gives_empty_views():
    views, _ = PrepareViews(RandAugmentViewsd("image", PLAN))(collate_clips([{"broken": "a.mp4: no"}]), "cpu")
    assert [view.shape for view in views] == [(0, 3, 3, 16, 16), (0, 3, 2, 8, 8), (0, 3, 2, 8, 8)]


def test_further_arguments_reach_the_views():
    prepare = PrepareViews(RandAugmentViewsd("image", PLAN))
    assert {view.dtype for view in prepare(collate_clips(list(raw_clips())), dtype=torch.float64)[0]} == {torch.float64}


def test_clips_need_a_seed():
    with pytest.raises(KeyError, match="seed"):
        PrepareViews(RandAugmentViewsd("image", PLAN))({"image": [torch.zeros(3, 7, 20, 26, dtype=torch.uint8)]})


def test_a_training_that_is_all_warm_up_is_warned_of(make_trainer, caplog):
    make_trainer(epochs=2)
    assert "`warmup_epochs`" not in caplog.text
    make_trainer(epochs=1)
    assert "`warmup_epochs` is not less than `epochs`=1: the learning rate only rises." in caplog.text
