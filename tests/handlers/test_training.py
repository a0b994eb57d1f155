# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from endofm_monai.data import ClipDataset, ClipLoader
from endofm_monai.engines import ClipEvaluator, ClipTrainer
from endofm_monai.handlers import (
    ClassificationReport,
    GradientHandler,
    TrainingHandlers,
    ValidationHandlers,
    WeightsCheckpointLoader,
)
from endofm_monai.optimizers import CosineSchedule

SCORES = {epoch: 0.1 * epoch for epoch in range(1, 10)}


class Scored:
    """Key metric that is known by epoch, and notes the epochs; what is no number is raised."""

    def __init__(self, scores: Mapping[int, Any]) -> None:
        self.scores, self.epochs = scores, list[int]()

    def attach(self, engine: Engine, name: str) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self, name)

    def __call__(self, engine: Engine, name: str) -> None:
        self.epochs.append(engine.state.epoch)
        score = self.scores[engine.state.epoch]
        if isinstance(score, Exception):
            raise score
        engine.state.metrics[name] = score


def train(
    folder: Path,
    epochs: int = 4,
    scores: Mapping[int, Any] = SCORES,
    handlers: Any = (),
    val_handlers: Any = (),
    **options: Any,
) -> tuple[Scored, ClipEvaluator]:
    """Train an affine function for some epochs of two iterations, with the handlers of a bundle."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0))
    items = [
        {"image": torch.full((1, 2, 2, 2), number / 4), "label": torch.tensor(float(number))} for number in range(4)
    ]
    dataset = ClipDataset(items, lambda item: item)
    metric, output = Scored(scores), str(folder / "eval")
    validation = ValidationHandlers(network, str(folder), output)
    evaluator = ClipEvaluator(
        "cpu", ClipLoader(dataset), network, key_val_metric={"score": metric}, val_handlers=[validation, *val_handlers]
    )
    optimizer = torch.optim.SGD(network.parameters(), 1e-2)
    schedule = CosineSchedule(1e-2, 1e-3)
    training = TrainingHandlers(
        network, optimizer, schedule, 4, str(folder), output, validator=evaluator, average_decay=0.5, **options
    )
    loader = ClipLoader(dataset, 2, shuffle=True)
    trainer = ClipTrainer("cpu", epochs, loader, network, optimizer, nn.MSELoss(), train_handlers=[training, *handlers])
    trainer.run()
    return metric, evaluator


def saved(folder: Path, name: str = "checkpoint.pt") -> Any:
    return torch.load(folder / name, weights_only=True)


def same_results(folder: Path, other: Path) -> bool:
    (one, best), (two, other_best) = ((saved(path, "model.pt"), saved(path)["best"]) for path in (folder, other))
    return best == other_best and all(value.equal(two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"), [(1, 3, [1, 2, 3]), (2, 3, [2, 3]), (2, 4, [2, 4]), (9, 3, [3])]
)
def test_the_last_epoch_is_always_validated(tmp_path, interval, epochs, expected):
    metric, _ = train(tmp_path, epochs, val_interval=interval)
    assert metric.epochs == expected
    assert (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("failing", [1, 2, 4])
def test_an_epoch_whose_validation_fails_is_saved_and_validated_on_resume(tmp_path, failing):
    train(tmp_path / "whole")
    with pytest.raises(ValueError, match="cannot be scored"):
        train(tmp_path / "parts", scores={**SCORES, failing: ValueError("cannot be scored")})
    assert saved(tmp_path / "parts")["iteration"] == 2 * failing
    metric, _ = train(tmp_path / "parts", resume=True)
    assert metric.epochs == list(range(failing, 5))
    assert same_results(tmp_path / "whole", tmp_path / "parts")


def test_a_signal_at_the_end_of_an_epoch_saves_before_the_validation_which_is_made_up_for(tmp_path):
    class Stop:
        def attach(self, engine: Engine) -> None:
            event = Events.ITERATION_STARTED(once=4)
            engine.add_event_handler(event, lambda: os.kill(os.getpid(), signal.SIGTERM))

    train(tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(tmp_path / "parts", handlers=[Stop()])
    metric, _ = train(tmp_path / "parts", resume=True)
    assert metric.epochs == [2, 3, 4]
    assert same_results(tmp_path / "whole", tmp_path / "parts")


def test_a_complete_training_is_not_validated_again(tmp_path):
    train(tmp_path, 2)
    model = (tmp_path / "model.pt").stat().st_mtime_ns
    assert train(tmp_path, 2, resume=True)[0].epochs == []
    assert (tmp_path / "model.pt").stat().st_mtime_ns == model
    assert train(tmp_path, 4, resume=True)[0].epochs == [3, 4]
    (tmp_path / "model.pt").unlink()  # which the last epoch makes up for
    assert train(tmp_path, 4, resume=True)[0].epochs == [4]
    assert (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("class_names", ("abnormal", "normal"), r"was \['normal', 'abnormal'\], and is \['abnormal', 'normal'\] now"),
        ("score", "roc_auc", "`selection_score` was None, and is 'roc_auc' now"),
    ],
)
def test_a_training_does_not_go_on_with_other_classes_or_another_score(tmp_path, key, value, said):
    """Swapped names would turn what the weights have learned round, and scores of two kinds do not compare."""

    class Judge(ClassificationReport):
        def attach(self, engine: Engine, name: str = "other") -> None:
            super().attach(engine, name)

        def _lack(self, items: Any) -> str:
            return ""

        def _collect(self, engine: Engine) -> None:
            """Nothing: the score is that of `Scored`."""

        def _score(self, engine: Engine, name: str) -> None:
            """As above."""

    def judge(**settings: Any) -> dict[str, Any]:
        return {"val_handlers": [Judge(**{"class_names": ["normal", "abnormal"], **settings})]}

    train(tmp_path, 2, **judge())
    assert train(tmp_path, 3, **judge(), resume=True)[0].epochs == [3]
    with pytest.raises(ValueError, match=rf"checkpoint\.pt: .*{said}"):
        train(tmp_path, 4, **judge(**{key: value}), resume=True)


def test_a_validation_without_a_score_chooses_no_weights(tmp_path):
    with pytest.raises(ValueError, match=r"'score', which chooses the weights, is undefined .* in epoch 1"):
        train(tmp_path, scores=dict.fromkeys(SCORES, float("nan")))
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("scores", "fails", "best", "error"),
    [
        (
            {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.2},
            [2],
            3,
            False,
        ),  # the next epoch that is better than the file takes its place
        ({1: 0.3, 2: 0.9, 3: 0.2, 4: 0.1}, [2], 1, True),
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.9}, [4], 3, True),
        ({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1}, [1, 2, 3, 4], -1, True),
    ],
)
def test_a_best_model_that_was_not_written_is_not_the_best(tmp_path, monkeypatch, caplog, scores, fails, best, error):
    write, metric = torch.save, []

    def save(state: Any, path: Path) -> None:
        if "best" not in state and metric[-1] in fails:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        write(state, path)

    class Epochs:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_STARTED, lambda: metric.append(engine.state.epoch))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        if error:
            with pytest.raises(OSError, match=r"could not write.*model\.pt"):
                train(tmp_path, scores=scores, handlers=[Epochs()])
        else:
            train(tmp_path, scores=scores, handlers=[Epochs()])
    assert caplog.text.count("The former model is kept") == len(fails)
    assert saved(tmp_path)["best"].items() >= {"metric": scores.get(best, -1), "epoch": best}.items()
    assert (tmp_path / "model.pt").exists() == (best > 0)


@pytest.mark.parametrize("has_model", [True, False])
def test_the_best_model_goes_with_a_checkpoint_of_another_folder(tmp_path, caplog, has_model):
    scores = {1: 0.9, 2: 0.1, 3: 0.2, 4: 0.3}
    train(tmp_path / "old", 2, scores)
    model = (tmp_path / "old" / "model.pt").read_bytes()
    if not has_model:
        (tmp_path / "old" / "model.pt").unlink()
    _, evaluator = train(tmp_path / "new", 4, scores, resume=str(tmp_path / "old" / "checkpoint.pt"))
    assert evaluator.state.best_metric_epoch == (1 if has_model else 4)
    assert ((tmp_path / "new" / "model.pt").read_bytes() == model) == has_model
    assert ("model.pt: is not there; the best epoch so far, 1, is forgotten" in caplog.text) != has_model


def hold(folder: str, started: Any, stop: Any) -> None:
    def wait(engine: Engine) -> None:
        started.set()
        stop.wait(60)

    class Wait:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_STARTED(once=1), wait)

    train(Path(folder), 1, handlers=[Wait()])


@pytest.mark.parametrize("end", ["finish", "kill"])
def test_a_second_training_in_a_folder_is_refused_while_the_first_runs(tmp_path, end):
    context = multiprocessing.get_context("fork")
    started, stop = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), started, stop))
    process.start()
    assert started.wait(60)
    with pytest.raises(FileExistsError, match=rf"another training is running there \(process {process.pid} on .+\)"):
        train(tmp_path, 1)
    stop.set() if end == "finish" else process.kill()
    process.join()
    train(tmp_path, 1, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "eval", "model.pt"]


@pytest.mark.parametrize(("epochs", "warned"), [(1, True), (2, True), (3, False)])
def test_prototypes_that_never_learn_are_warned_of(caplog, epochs, warned):
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    GradientHandler(freeze_last_layer_epochs=2).attach(engine)
    engine.run([0], max_epochs=epochs)
    assert ("`freeze_last_layer_epochs` is 2" in caplog.text) is warned


def test_weights_that_are_loaded_are_told_of(tmp_path, caplog):
    caplog.set_level("INFO", "endofm_monai")
    train(tmp_path / "first", 1)
    model = tmp_path / "first" / "model.pt"
    train(tmp_path / "second", 1, weights=str(model))
    assert f"{model} (state dict, all): loaded 2 of the network's 2 tensors" in caplog.text


def test_an_evaluation_without_weights_names_their_setting() -> None:
    with pytest.raises(ValueError, match="`weights` must be a file, found None"):
        WeightsCheckpointLoader(nn.Linear(1, 1), None)  # type: ignore[arg-type]
