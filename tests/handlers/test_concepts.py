# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import os
import signal
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endofm_monai.data import ClipDataset, ClipLoader
from endofm_monai.engines import PretrainingTrainer
from endofm_monai.handlers import (
    BrokenClipsHandler,
    ConceptHealthHandler,
    ConceptPhaseHandler,
    GradientHandler,
    ScheduleHandler,
    TrainingCheckpointHandler,
)
from endofm_monai.losses import ConceptLoss
from endofm_monai.networks.nets import ConceptNetwork, EndoFM
from endofm_monai.optimizers import StepSchedule

TERMS = {f"{term}_{kind}" for term in ("contrast", "reconstruction", "local") for kind in ("rgb", "static", "dynamic")}
TERMS |= {f"{term}_{kind}" for term in ("alignment", "entropy") for kind in ("static", "dynamic")}


def make_views(item: dict[str, Any]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(item["seed"])
    return {"image": [torch.randn(3, 2, 16, 16, generator=generator) + item["index"] for _ in range(6)]}


def make_trainer(ckpt_dir: Any = None, epochs: int = 4, resume: bool = False, handlers: Any = ()) -> PretrainingTrainer:
    """A tiny trainer of 6 videos in 3 steps an epoch, with local concepts from the third epoch on."""
    torch.manual_seed(0)
    backbone = EndoFM(img_size=16, num_frames=2, embed_dim=16, depth=1, num_heads=2, drop_path_rate=0.2)
    network, loss = ConceptNetwork(backbone, 10, hidden_dim=8, bottleneck_dim=4), ConceptLoss(10, 2, 8)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-5)
    checkpoints = [] if ckpt_dir is None else [TrainingCheckpointHandler(ckpt_dir, resume=resume)]
    return PretrainingTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=ClipLoader(ClipDataset([{}] * 6, make_views), batch_size=2, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=lambda batch, *args, **kwargs: (batch["image"], None),
        train_handlers=[
            ConceptPhaseHandler(loss, epochs_without_local_loss=2),
            BrokenClipsHandler("skip"),
            ScheduleHandler(optimizer, "lr", StepSchedule(1e-3, 1e-4), 4),
            GradientHandler(max_norm=3.0, freeze_last_layer_epochs=1),
            *handlers,
            *checkpoints,
        ],
    )


def state_of(trainer: PretrainingTrainer) -> dict[str, torch.Tensor]:
    return {
        name: value.clone()
        for part in (trainer.network, trainer.loss_function)
        for name, value in part.state_dict().items()
    }


class PartsWithGradient:
    """Notes of each epoch which parts of the network had a gradient in a step."""

    def __init__(self) -> None:
        self.parts: dict[int, set[str]] = {}

    def attach(self, engine: PretrainingTrainer) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.note)

    def note(self, engine: PretrainingTrainer) -> None:
        found = {name.split(".")[0] for name, value in engine.network.named_parameters() if value.grad is not None}
        self.parts.setdefault(engine.state.epoch, set()).update(found)


def test_prototypes_learn_from_the_second_epoch_and_local_concepts_later(tmp_path):
    noted = PartsWithGradient()
    trainer = make_trainer(epochs=3, handlers=[noted, ConceptHealthHandler(str(tmp_path))])
    trainer.run()
    rest = {"backbone", "contrast_heads", "concept_heads", "decoders"}
    assert noted.parts == {1: rest, 2: rest | {"prototypes"}, 3: rest | {"prototypes", "integration"}}
    assert trainer.loss_function.uses_queue
    assert trainer.loss_function.local_weight == 1

    log = EventAccumulator(str(tmp_path)).Reload()
    steps = TERMS | {"loss", "lr", "gradient_norm", "concept_entropy", "concepts_used"}
    epochs = steps | {"effective_rank", "spread", "clips_per_second", "waiting"}
    assert set(log.Tags()["scalars"]) == {f"step/{name}" for name in steps} | {f"epoch/{name}" for name in epochs}
    assert [event.step for event in log.Scalars("step/loss")] == list(range(1, 10))
    assert log.Scalars("epoch/concepts_used")[0].value <= 10


def test_what_gathers_local_concepts_stays_until_it_learns():
    trainer = make_trainer(epochs=2)
    before = copy.deepcopy(trainer.network.integration.state_dict())
    trainer.run()
    after = trainer.network.integration.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """What a training that was never interrupted learns."""
    whole = make_trainer()
    whole.run()
    return state_of(whole)


@pytest.mark.parametrize("iteration", [3, 4, 6])
def test_resume_is_bit_identical_also_where_a_phase_begins_and_within_it(expected, tmp_path, iteration):
    stopped = make_trainer(tmp_path)
    stopped.add_event_handler(Events.ITERATION_STARTED(once=iteration), os.kill, os.getpid(), signal.SIGTERM)
    stopped.run()
    assert stopped.state.iteration == iteration
    resumed = make_trainer(tmp_path, resume=True)
    resumed.run()
    found = state_of(resumed)
    assert [name for name in expected if not expected[name].equal(found[name])] == []
    assert {"queue", "queue_rows"} <= expected.keys()


def test_the_backbone_alone_is_shared(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.run()
    shared = torch.load(tmp_path / "model.pt", weights_only=True)
    assert shared.keys() == trainer.network.backbone.state_dict().keys()
