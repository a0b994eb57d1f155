# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from processes import run_two_processes
from regression import LABELS, assert_equal, make_loader, make_trainer, weights_of
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.engines import ClipTrainer
from endofm_monai.handlers import (
    TrainingCheckpointHandler,
    TrainingLogHandler,
    UnhealthyTrainingError,
)
from endofm_monai.networks import unwrap


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


def test_a_loss_goes_to_the_device_with_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    loss, network = torch.nn.CrossEntropyLoss(torch.ones(2)), torch.nn.Linear(1, 2)
    monkeypatch.setattr(loss, "to", devices.append)
    trainer = ClipTrainer("cpu", 1, make_loader(LABELS, 2), network, torch.optim.SGD(network.parameters()), loss)
    assert devices == [torch.device("cpu")]
    assert "loss" not in trainer.checkpoint_parts()  # or a resumed training would take the former weights of classes


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
