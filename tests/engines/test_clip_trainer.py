# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import logging
import math
import os
import signal
import time
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine
from monai.transforms import Randomizable, Transform
from processes import run_two_processes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler, collate_clips
from endofm_monai.engines import ClipEvaluator, ClipTrainer
from endofm_monai.handlers import (
    BestModelHandler,
    GradientHandler,
    ScheduleHandler,
    TrainingCheckpointHandler,
    TrainingLogHandler,
    UnhealthyTrainingError,
)
from endofm_monai.networks import unwrap
from endofm_monai.networks.nets import EndoFM
from endofm_monai.optimizers import CosineSchedule


class RandomClip(Randomizable, Transform):
    """A clip (3, 2, 16, 16) of noise; one whose label is None cannot be read."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["label"] is None:
            raise ClipReadError(f"{item['image']}: truncated")
        noise = torch.from_numpy(self.R.standard_normal((3, 2, 16, 16))).float()
        return {**item, "image": MetaTensor(noise + item["label"])}  # as clips are loaded


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = EndoFM(16, 8, 2, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.2)
        self.head = nn.Linear(16, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(clips))[:, 0]


def make_loader(labels: list[Any], batch_size: int) -> DataLoader:
    items = [{"image": f"{index}.mp4", "label": label} for index, label in enumerate(labels)]
    dataset = ClipDataset(items, RandomClip(), seed=5)
    sampler = EpochSampler(dataset, seed=1)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, collate_fn=collate_clips, generator=torch.Generator()
    )


def make_trainer(
    labels: list[Any], batch_size: int = 2, epochs: int = 2, handlers: Any = (), wrap: Any = None, **kwargs: Any
) -> ClipTrainer:
    network = Regressor()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    return ClipTrainer(
        "cpu",
        epochs,
        make_loader(labels, batch_size),
        wrap(network) if wrap else network,
        optimizer,
        lambda prediction, target: (prediction - target) ** 2,
        train_handlers=[GradientHandler(max_norm=1.0), *handlers],
        **kwargs,
    )


def weights_of(trainer: ClipTrainer) -> dict[str, torch.Tensor]:
    network = trainer.network_to_share()
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **tolerance: float) -> None:
    for name in first:
        torch.testing.assert_close(first[name], second[name], **(tolerance or {"atol": 0.0, "rtol": 0.0}))


LABELS = [0.5, -0.5, 1.0, 0.0, 2.0, -1.0]


@pytest.mark.parametrize(("labels", "steps"), [(LABELS[:4], 2), ([*LABELS[:3], None], 4)])
def test_accumulation_equals_the_larger_batch(labels, steps) -> None:
    """Also where a batch of the group has no clip that can be read: the mean is of the others."""

    def gradients_of_first_step(**settings: int) -> dict[str, torch.Tensor]:
        seen = {}

        def keep(engine: ClipTrainer) -> None:
            seen.update({name: value.grad.clone() for name, value in engine.network.named_parameters()})
            seen["norm before it was clipped"] = engine.state.gradient_norm

        trainer = make_trainer(labels, epochs=1, **settings)
        for block in trainer.network.backbone.blocks:
            block.drop_path.active = False
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, keep)
        trainer.run()
        return seen

    parts = gradients_of_first_step(batch_size=4 // steps, accumulation_steps=steps)
    assert_equal(parts, gradients_of_first_step(batch_size=4), atol=1e-6, rtol=1e-4)


def test_the_loss_of_a_step_is_the_mean_of_all_that_it_learned_from() -> None:
    trainer = make_trainer(
        [*LABELS[:5], None], batch_size=1, epochs=1, accumulation_steps=3, handlers=[TrainingLogHandler()]
    )
    steps: list[list[float]] = [[], []]

    def note(engine: ClipTrainer) -> None:
        if "loss" in engine.state.output:
            steps[(engine.state.iteration - 1) // 3].append(float(engine.state.output["loss"]))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    assert sorted(map(len, steps)) == [2, 3]
    assert trainer.state.metrics["loss"] == pytest.approx(sum(sum(step) / len(step) for step in steps) / 2)


def test_network_computes_without_metadata() -> None:
    kinds = set()
    trainer = make_trainer([0.0, 1.0], epochs=1)
    trainer.network.register_forward_pre_hook(lambda _, args: kinds.add(type(args[0])))
    trainer.run()
    assert kinds == {torch.Tensor}


def test_batch_without_a_readable_clip_is_skipped() -> None:
    losses = []
    trainer = make_trainer([None, None, 1.0, 2.0], batch_size=1, epochs=1)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append("loss" in engine.state.output))
    trainer.run()
    assert sorted(losses) == [False, False, True, True]


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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_too_little_memory_is_named(error) -> None:
    def fail(engine: ClipTrainer) -> None:
        if engine.state.iteration == 2:
            raise error

    trainer = make_trainer(LABELS)
    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, fail)
    with pytest.raises(
        MemoryError, match=r"^Training, iteration 2: there is not enough memory; lower `batch_size`.*\)\.$"
    ):
        trainer.run()


def test_model_is_written_only_when_the_metric_improves(tmp_path) -> None:
    trainer, evaluator = make_resumable(tmp_path, 1)
    trainer.run()
    best = (tmp_path / "model.pt").read_bytes()
    nn.init.constant_(trainer.network.head.bias, 100.0)
    evaluator.run(global_epoch=2)
    assert (tmp_path / "model.pt").read_bytes() == best
    assert evaluator.state.best_metric_epoch == 1


def test_training_log_has_the_mean_of_the_steps_and_stops_at_nan(tmp_path, caplog) -> None:
    caplog.set_level("INFO", "endofm_monai")
    trainer = make_trainer(LABELS, handlers=[TrainingLogHandler(str(tmp_path))])
    losses: list[float] = []
    trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    trainer.run()
    assert trainer.state.metrics["loss"] == pytest.approx(sum(losses[3:]) / 3)
    assert {"gradient_norm", "lr", "clips_per_second", "waiting"} <= set(trainer.state.metrics)
    assert "epoch 2/2 | lr 0.01 | loss" in caplog.text

    slow = make_trainer(LABELS, handlers=[TrainingLogHandler()])
    slow.add_event_handler(Events.EPOCH_STARTED, lambda: time.sleep(1))  # as a report that judges the network first
    slow.run()
    assert slow.state.metrics["clips_per_second"] > len(LABELS)
    assert slow.state.metrics["waiting"] < 0.9

    broken = make_trainer([float("nan")] * 2, handlers=[TrainingLogHandler(), TrainingCheckpointHandler(str(tmp_path))])
    before = weights_of(broken)
    with pytest.raises(UnhealthyTrainingError, match="The loss is nan in iteration 1"):
        broken.run()
    assert_equal(weights_of(broken), before)
    assert (tmp_path / "checkpoint_unhealthy.pt").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_trains(dtype: torch.dtype) -> None:
    trainer = make_trainer(LABELS, amp=True, amp_kwargs={"dtype": dtype})
    before = weights_of(trainer)
    trainer.run()
    after = weights_of(trainer)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in after.values())
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert trainer.scaler.is_enabled() == (dtype == torch.float16)


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_precision_of_a_cpu_is_said_where_it_is_not_chosen(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    monkeypatch.setattr("endofm_monai.engines.trainer.multiplies_faster", lambda dtype, device: faster)
    caplog.set_level("INFO", logger="endofm_monai.engines.trainer")
    make_trainer(LABELS, amp=faster)
    assert not caplog.records
    make_trainer(LABELS, amp=not faster)
    ((_, level, said),) = caplog.record_tuples
    assert said == f"Training is faster on this CPU with `--amp {faster}`."
    assert level == (logging.INFO if faster else logging.WARNING)


def test_compiled_blocks_train_as_eager_ones() -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    eager = make_trainer(LABELS)
    compiled = make_trainer(LABELS, compile=True, compile_kwargs={"backend": backend})
    for trainer in (eager, compiled):
        for block in trainer.network.backbone.blocks:
            block.drop_path.active = False
        trainer.run()
    assert_equal(weights_of(compiled), weights_of(eager), atol=1e-6, rtol=1e-5)
    assert len(graphs) >= 2  # all tokens, and the last block's class token


def train_with_a_broken_clip(**settings: Any) -> dict[str, torch.Tensor]:
    handlers = [TrainingLogHandler()]
    trainer = make_trainer([*LABELS, None, 3.0], epochs=1, accumulation_steps=2, handlers=handlers, **settings)
    for block in unwrap(trainer.network).backbone.blocks:
        block.drop_path.active = False
    trainer.run()
    return {**weights_of(trainer), "logged loss": torch.tensor(trainer.state.metrics["loss"])}


def run_rank(rank: int, folder: str) -> None:
    torch.save(train_with_a_broken_clip(wrap=DistributedDataParallel), f"{folder}/{rank}.pt")


def test_two_processes_stay_equal_also_with_a_broken_clip(tmp_path) -> None:
    run_two_processes(run_rank, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert_equal(first, second)
    assert_equal(first, train_with_a_broken_clip(batch_size=4), atol=1e-5, rtol=1e-3)


def run_rank_into_nan(rank: int, folder: str) -> None:
    handlers = [TrainingLogHandler(), TrainingCheckpointHandler(folder)]
    trainer = make_trainer([1.0, math.nan], batch_size=1, wrap=DistributedDataParallel, handlers=handlers)
    with pytest.raises(UnhealthyTrainingError, match="The loss is nan in iteration 1"):
        trainer.run()


def test_a_loss_that_is_not_finite_in_one_process_stops_all(tmp_path) -> None:
    """Instead of one that waits to save and another one that waits for its gradients."""
    run_two_processes(run_rank_into_nan, str(tmp_path))
    assert (tmp_path / "checkpoint_unhealthy.pt").exists()
