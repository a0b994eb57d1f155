# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import math
import os
import signal

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endofm_monai.handlers import HealthHandler, UnhealthyTrainingError

STEP = {"loss", "cross_view", "dynamic_motion", "teacher_entropy", "center_norm", "gradient_norm"}
STEP |= {"lr", "weight_decay", "teacher_momentum"}
EPOCH = STEP | {"effective_rank", "spread", "clips_per_second", "waiting"}


def test_steps_and_epochs_go_to_tensorboard_and_one_line_an_epoch(make_trainer, tmp_path, caplog):
    trainer = make_trainer(epochs=2, clips=8, handlers=[HealthHandler(str(tmp_path))])
    with caplog.at_level(logging.INFO, "endofm_monai"):
        trainer.run()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("endofm_monai")]
    assert [line.split(" | ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    log = EventAccumulator(str(tmp_path)).Reload()
    assert set(log.Tags()["scalars"]) == {f"step/{name}" for name in STEP} | {f"epoch/{name}" for name in EPOCH}
    steps = log.Scalars("step/loss")
    assert [event.step for event in steps] == list(range(1, 9))
    mean = sum(event.value for event in steps[4:]) / 4
    assert log.Scalars("epoch/loss")[1].value == pytest.approx(mean, rel=1e-5)
    assert trainer.state.metrics["loss"] == pytest.approx(mean, rel=1e-5)
    for loss, cross_view, dynamic_motion in zip(
        steps, log.Scalars("step/cross_view"), log.Scalars("step/dynamic_motion"), strict=True
    ):
        assert loss.value == pytest.approx(cross_view.value + dynamic_motion.value, rel=1e-5)
    assert 0 < trainer.state.metrics["teacher_entropy"] <= math.log(12) + 1e-5


@pytest.mark.parametrize("iteration", [5, 7])
def test_a_resumed_epoch_is_logged_as_one_that_did_not_stop(make_trainer, tmp_path, iteration):
    def train(folder, stop_at=None, **arguments):
        trainer = make_trainer(tmp_path / folder, clips=8, max_epochs=2, handlers=[HealthHandler()], **arguments)
        event = Events.ITERATION_STARTED(once=stop_at or 9)
        trainer.add_event_handler(event, os.kill, os.getpid(), signal.SIGTERM)
        trainer.run()
        return trainer.state

    whole, stopped, resumed = train("whole"), train("parts", iteration), train("parts", resume=True)
    assert (stopped.iteration, resumed.iteration) == (iteration, 8)
    for name in STEP:
        assert resumed.metrics[name] == whole.metrics[name], name


def test_collapse_is_counted_over_stops(make_trainer, tmp_path, caplog):
    for epochs in (2, 3):
        trainer = make_trainer(tmp_path, max_epochs=epochs, resume=True, handlers=[HealthHandler(collapse_patience=4)])
        collapse(trainer).run()
    assert "epoch 3 | all clips look the same to the teacher since epoch 1" in caplog.text
    trainer = collapse(make_trainer(tmp_path, resume=True, handlers=[HealthHandler(collapse_patience=4)]))
    with pytest.raises(UnhealthyTrainingError, match="since epoch 1"):
        trainer.run()
    after = tmp_path / "checkpoint_unhealthy.pt"  # with other settings it is judged anew
    trainer = make_trainer(tmp_path, epochs=7, resume=str(after), handlers=[HealthHandler(collapse_patience=4)])
    collapse(trainer).run()
    assert trainer.state.epoch == 7
    assert "epoch 7 | all clips look the same to the teacher since epoch 5" in caplog.text


def test_a_log_that_cannot_be_written_ends_the_training_before_its_first_batch(make_trainer, tmp_path):
    (tmp_path / "file").touch()
    trainer = make_trainer(handlers=[HealthHandler(str(tmp_path / "file" / "log"))])
    with pytest.raises(OSError, match="cannot be written to"):
        trainer.run()
    assert trainer.state.batch is None


def test_a_checkpoint_without_a_log_is_resumed(make_trainer, tmp_path):
    make_trainer(tmp_path, max_epochs=1).run()
    trainer = make_trainer(tmp_path, max_epochs=2, resume=True, handlers=[HealthHandler()])
    trainer.run()
    assert trainer.state.epoch == 2


@pytest.mark.parametrize("broken", range(4))
def test_a_step_has_the_mean_of_all_iterations_with_a_clip(make_trainer, broken):
    steps = [[], []]

    def note(engine):
        if "loss" in engine.state.output:
            loss = engine.loss_function
            values = loss.total, loss.teacher_entropy, loss.cross_view
            steps[(engine.state.iteration - 1) // 2].append(torch.stack(values))

    clips = [{"clip": None if index == broken else index / 10} for index in range(4)]
    trainer = make_trainer(epochs=1, clips=clips, batch_size=1, accumulation=2, handlers=[HealthHandler()])
    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, note)
    trainer.run()
    assert sorted(map(len, steps)) == [1, 2]
    means = [trainer.state.metrics[name] for name in ("loss", "teacher_entropy", "cross_view")]
    assert means == pytest.approx(torch.stack([torch.stack(step).mean(dim=0) for step in steps]).mean(dim=0).tolist())


def test_non_finite_loss_stops_before_the_weights_change_and_is_saved(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, handlers=[HealthHandler()])
    before = {}

    def poison(engine):
        if engine.state.iteration == 3:
            before.update({name: value.clone() for name, value in engine.network.state_dict().items()})
            engine.loss_function.center.fill_(float("nan"))

    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, poison)
    with pytest.raises(UnhealthyTrainingError, match="The loss is nan in iteration 3 .epoch 1.. Look at"):
        trainer.run()
    saved = torch.load(tmp_path / "checkpoint_unhealthy.pt", weights_only=True)
    assert saved["iteration"] == 3
    for name, value in saved["student"].items():
        assert torch.equal(value, before[f"student.{name}"])
    assert not (tmp_path / "checkpoint.pt").exists()


def collapse(trainer):
    """Make both networks give the same class token for every clip, for good."""
    for network in (trainer.network.student, trainer.network.teacher):
        network.backbone.norm.requires_grad_(False)
        network.backbone.norm.weight.zero_()
        network.backbone.norm.bias.fill_(1.0)
    return trainer


def test_collapse_stops_after_patience(make_trainer, tmp_path):
    trainer = collapse(make_trainer(tmp_path, epochs=9, handlers=[HealthHandler(collapse_patience=3)]))
    with pytest.raises(
        UnhealthyTrainingError,
        match=r"collapsed.*same to the teacher since epoch 1.*spread 0.000.*`base_learning_rate`",
    ):
        trainer.run()
    assert trainer.state.epoch == 3
    assert torch.load(tmp_path / "checkpoint_unhealthy.pt", weights_only=True)["iteration"] == 15


def test_collapse_is_only_said_without_patience(make_trainer, caplog):
    trainer = collapse(make_trainer(epochs=4, handlers=[HealthHandler(collapse_patience=None)]))
    trainer.run()
    assert trainer.state.epoch == 4
    assert trainer.state.metrics["spread"] == pytest.approx(0, abs=1e-6)
    said = [record.getMessage() for record in caplog.records if "since epoch 1" in record.getMessage()]
    assert [message.split(" | ")[0] for message in said] == ["epoch 3", "epoch 4"]  # the first two may start so


def test_uniform_targets_name_the_overlay_for_few_clips(make_trainer, caplog):
    trainer = make_trainer(epochs=3, handlers=[HealthHandler()])
    for network in (trainer.network.student, trainer.network.teacher):
        network.head.last_layer.requires_grad_(False)
        network.head.last_layer.parametrizations.weight.original1.fill_(1.0)  # all prototypes are the same
    trainer.run()
    assert "targets uniform since epoch 1" in caplog.text
    assert "`small.json`" in caplog.text


def test_a_student_that_cannot_follow_its_targets_is_told_of_and_goes_on(make_trainer, caplog):
    trainer = make_trainer(epochs=4, handlers=[HealthHandler(collapse_patience=3)])
    trainer.network.student.head.last_layer.requires_grad_(False)
    trainer.network.student.head.last_layer.parametrizations.weight.original1.fill_(1.0)  # it tells no prototypes apart
    trainer.loss_function.teacher_temperature = 0.01
    trainer.run()
    metrics = trainer.state.metrics
    assert metrics["loss"] / math.log(12) == pytest.approx(1, abs=1e-3)
    assert metrics["teacher_entropy"] / math.log(12) < 0.99
    said = [record.getMessage() for record in caplog.records if "learns nothing since epoch 1" in record.getMessage()]
    assert [message.split(" | ")[0] for message in said] == ["epoch 3", "epoch 4"]
    assert "`views`" in said[0]
