# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines.utils import IterationEvents
from monai.handlers import MeanSquaredError, from_engine
from processes import run_two_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.data import ClipDataset, EpochSampler, collate_clips
from endofm_monai.engines import ClipEvaluator, ClipTrainer
from endofm_monai.handlers import (
    BestModelHandler,
    EpochValidationHandler,
    TrainingCheckpointHandler,
    WeightAverageHandler,
)


def make_trainer(
    folder: Path,
    epochs: int,
    decay: float = 0.6,
    resume: bool = False,
    evaluators: list[ClipEvaluator] | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> ClipTrainer:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 1), nn.BatchNorm1d(1), nn.Flatten(0))
    generator = torch.Generator().manual_seed(1)
    items = [{"image": torch.randn(1, 2, 2, 2, generator=generator), "label": torch.tensor(float(i))} for i in range(8)]
    dataset = ClipDataset(items, lambda item: item)
    loader = DataLoader(
        dataset, batch_size=2, sampler=EpochSampler(dataset, seed=0), drop_last=True, collate_fn=collate_clips
    )
    evaluator = ClipEvaluator(
        torch.device("cpu"),
        loader,
        network,
        key_val_metric={"error": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda now, best: True,
        val_handlers=[BestModelHandler(network, str(folder))],
        postprocessing=lambda item: {**item, **{key: torch.tensor([item[key]]) for key in ("pred", "label")}},
    )
    if evaluators is not None:
        evaluators.append(evaluator)
    return ClipTrainer(
        "cpu",
        epochs,
        loader,
        wrap(network),
        torch.optim.SGD(network.parameters(), lr=1e-2),
        nn.MSELoss(),
        train_handlers=[
            WeightAverageHandler(network, evaluator, decay),
            TrainingCheckpointHandler(str(folder), resume, evaluator=evaluator),
            EpochValidationHandler(1, evaluator),
        ],
    )


def weights(trainer: ClipTrainer) -> torch.Tensor:
    return trainer.network[1].weight.detach().clone()


def test_the_average_is_kept_and_the_training_goes_on_with_its_own_weights(tmp_path: Path) -> None:
    steps: list[torch.Tensor] = []
    trainer = make_trainer(tmp_path, 2)
    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: steps.append(weights(engine)))
    trainer.run()

    expected = steps[0]
    for number, step in enumerate(steps[1:], start=2):
        decay = min(0.6, number / (9 + number))
        expected = decay * expected + (1 - decay) * step
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(model["1.weight"], expected)
    torch.testing.assert_close(model["2.running_mean"], trainer.network[2].running_mean)
    assert torch.equal(weights(trainer), steps[-1])
    assert not torch.allclose(expected, steps[-1], rtol=1e-3)


def test_a_decay_of_0_keeps_the_last_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 1, decay=0.0)
    trainer.run()
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["1.weight"], weights(trainer))


def test_a_resumed_training_goes_on_with_its_average(tmp_path: Path) -> None:
    make_trainer(tmp_path / "whole", 3).run()
    make_trainer(tmp_path / "parts", 1).run()
    make_trainer(tmp_path / "parts", 3, resume=True).run()
    models = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "parts")]
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name


def run_rank(rank: int, folder: Path) -> None:
    evaluators: list[ClipEvaluator] = []
    trainer = make_trainer(folder, epochs=2, evaluators=evaluators, wrap=DistributedDataParallel)

    def note(evaluator: ClipEvaluator) -> None:
        torch.save(evaluator.network.state_dict(), folder / f"{rank}.pt")

    evaluators[0].add_event_handler(Events.EPOCH_STARTED, note)
    trainer.run()


def test_processes_validate_the_network_that_is_kept(tmp_path: Path) -> None:
    run_two_processes(run_rank, tmp_path)
    kept, *validated = (torch.load(tmp_path / f"{name}.pt") for name in ("model", 0, 1))
    assert kept["2.running_mean"].any()
    for state in validated:
        assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_an_evaluation_after_the_training_is_of_the_weights_that_are_there(tmp_path: Path) -> None:
    evaluators: list[ClipEvaluator] = []
    trainer = make_trainer(tmp_path, 1, evaluators=evaluators)
    trainer.run()
    averaged = torch.load(tmp_path / "model.pt", weights_only=True)["1.weight"]
    with torch.no_grad():
        trainer.network[1].weight.fill_(0.25)
    evaluators[0].run()
    used = torch.load(tmp_path / "model.pt", weights_only=True)["1.weight"]
    assert torch.equal(used, torch.full_like(used, 0.25))
    assert not torch.equal(used, averaged)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range(tmp_path: Path, decay: float) -> None:
    with pytest.raises(ValueError, match="`average_decay` must be from 0 to below 1"):
        make_trainer(tmp_path, 1, decay=decay)
