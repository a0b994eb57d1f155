# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine
from regression import LABELS, assert_equal, make_loader, make_trainer, weights_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from endofm_monai.engines import ClipEvaluator, ClipTrainer
from endofm_monai.handlers import (
    BestModelHandler,
    ScheduleHandler,
    TrainingCheckpointHandler,
    TrainingLogHandler,
    UnhealthyTrainingError,
)
from endofm_monai.optimizers import CosineSchedule


def make_resumable(
    folder: Any, epochs: int, resume: bool = False, handlers: Any = (), **checkpoints: Any
) -> tuple[ClipTrainer, ClipEvaluator]:
    trainer = make_trainer(LABELS, epochs=epochs, handlers=handlers)
    error = MeanSquaredError(output_transform=from_engine(["pred", "label"]))
    evaluator = ClipEvaluator(
        torch.device("cpu"),
        make_loader(LABELS[:2], 2),
        trainer.network,
        key_val_metric={"error": error},
        metric_cmp_fn=lambda now, best: now < best,
        val_handlers=[BestModelHandler(trainer.network, str(folder))],
        postprocessing=lambda item: {**item, **{key: torch.tensor([item[key]]) for key in ("pred", "label")}},
    )
    ScheduleHandler(trainer.optimizer, "lr", CosineSchedule(1e-2, 1e-4), 4).attach(trainer)
    ValidationHandler(1, evaluator).attach(trainer)
    TrainingCheckpointHandler(str(folder), resume, evaluator=evaluator, **checkpoints).attach(trainer)
    return trainer, evaluator


def assert_resumes_to_the_same(tmp_path, whole: ClipTrainer, whole_evaluator: Any) -> None:
    resumed, evaluator = make_resumable(tmp_path / "parts", 4, resume=True)
    resumed.run()
    assert_equal(weights_of(resumed), weights_of(whole))
    assert evaluator.state.best_metric == whole_evaluator.state.best_metric
    assert evaluator.state.best_metric_epoch == whole_evaluator.state.best_metric_epoch
    best = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "parts")]
    assert_equal(*best)


def test_resumed_training_gives_the_same_weights_best_metric_and_best_model(tmp_path) -> None:
    whole, whole_evaluator = make_resumable(tmp_path / "whole", 4)
    whole.run()
    make_resumable(tmp_path / "parts", 2)[0].run()
    assert_resumes_to_the_same(tmp_path, whole, whole_evaluator)


class SignalAt:
    """Sends the process a signal in the middle of an iteration, as a scheduler does."""

    def __init__(self, signum: int, iteration: int) -> None:
        self.signum, self.iteration = signum, iteration

    def attach(self, engine: ClipTrainer) -> None:
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: ClipTrainer) -> None:
        if engine.state.iteration == self.iteration:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(
    ("signum", "iteration", "stopped_at"),
    [(signal.SIGTERM, 3, 3), (signal.SIGUSR1, 6, 6), (signal.SIGUSR1, 5, 5), (signal.SIGTERM, 12, 12)],
)
@pytest.mark.parametrize("interval", [1, 3])
def test_a_signal_loses_no_validation(tmp_path, caplog, signum, iteration, stopped_at, interval) -> None:
    """An epoch has three iterations; after the last one of an epoch its validation comes first."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    whole, whole_evaluator = make_resumable(tmp_path / "whole", 4)
    whole.run()
    at = SignalAt(signum, iteration)
    stopped, evaluator = make_resumable(tmp_path / "parts", 4, handlers=[at], interval=interval)
    stopped.run()
    assert (stopped.state.iteration, evaluator.state.epoch) == (stopped_at, stopped_at // 3)
    assert ("Stopped by SIG" in caplog.text) == (iteration < 12)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert_resumes_to_the_same(tmp_path, whole, whole_evaluator)


@pytest.mark.parametrize(("iteration", "code"), [(5, 75), (6, 75), (12, None)])
def test_a_scheduler_hears_that_the_training_is_not_done(tmp_path, iteration, code) -> None:
    trainer, _ = make_resumable(tmp_path, 4, handlers=[SignalAt(signal.SIGTERM, iteration)], ends_process=True)
    if code is None:
        return trainer.run()
    with pytest.raises(SystemExit) as caught:
        trainer.run()
    assert caught.value.code == code
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == iteration


def test_weights_that_are_no_longer_finite_stop_the_training(tmp_path) -> None:
    """The loss of the step was finite; without it the next validation would end in an error about something else."""

    def poison(engine: ClipTrainer) -> None:
        if engine.state.iteration == 3:
            engine.network.head.weight.grad.fill_(float("nan"))

    handlers = [TrainingLogHandler(), TrainingCheckpointHandler(str(tmp_path))]
    trainer = make_trainer(LABELS, handlers=handlers)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, poison)
    with pytest.raises(UnhealthyTrainingError, match=r"The weights are no longer finite in iteration 3 \(epoch 1\)"):
        trainer.run()
    assert torch.load(tmp_path / "checkpoint_unhealthy.pt", weights_only=True)["iteration"] == 3
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_training_goes_on_within_a_group_of_other_size(tmp_path) -> None:
    def make(resume: bool, steps: int, *more: Any) -> ClipTrainer:
        handlers = [*more, TrainingCheckpointHandler(str(tmp_path), resume)]
        return make_trainer(LABELS, batch_size=1, epochs=1, handlers=handlers, accumulation_steps=steps)

    make(False, 1, SignalAt(signal.SIGTERM, 2)).run()
    resumed = make(True, 4)
    steps = []
    resumed.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: steps.append(engine.state.iteration))
    resumed.run()
    assert steps == [4, 6]


def test_steps_after_a_kill_are_logged_once(tmp_path) -> None:
    class KilledError(Exception):
        pass

    def kill(engine: ClipTrainer) -> None:
        if engine.state.iteration == 5:
            raise KilledError

    def train(resume: bool) -> ClipTrainer:
        log = TrainingLogHandler(str(tmp_path / "log"))
        trainer = make_trainer(LABELS, handlers=[log, TrainingCheckpointHandler(str(tmp_path), resume)])
        if not resume:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, log.board.flush)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
        return trainer

    with pytest.raises(KilledError):
        train(False).run()
    time.sleep(1.1)  # the names of logs count seconds
    train(True).run()
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.step for event in log.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in log.Scalars("epoch/loss")] == [3, 6]


def test_model_is_written_only_when_the_metric_improves(tmp_path) -> None:
    trainer, evaluator = make_resumable(tmp_path, 1)
    trainer.run()
    best = (tmp_path / "model.pt").read_bytes()
    nn.init.constant_(trainer.network.head.bias, 100.0)
    evaluator.run(global_epoch=2)
    assert (tmp_path / "model.pt").read_bytes() == best
    assert evaluator.state.best_metric_epoch == 1
