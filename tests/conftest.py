# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Randomizable, Transform
from torch import nn

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler, collate_clips, survive_first_sigterm
from endofm_monai.engines import StudentTeacherTrainer
from endofm_monai.handlers import GradientHandler, ScheduleHandler, TeacherUpdateHandler, TrainingCheckpointHandler
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import CosineSchedule, weight_decay_groups

torch.set_num_threads(1)  # the networks of the tests are too small to gain from more, and workers run beside them
gc.freeze()  # what has been imported stays


def recipe(name: str, shape: Any, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
    """The tensor that the golden files' recipe makes from a name."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    return torch.from_numpy((random.standard_normal(tuple(shape)) * std + mean).astype(np.float32))


def published_name(key: str) -> str:
    """The published name of a parameter: weight normalization had other names then."""
    return key.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


@pytest.fixture(scope="session", autouse=True)
def no_cpu_is_faster_in_bfloat16() -> Iterator[None]:
    """Trainings log the same on every machine, where they would measure its CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("endofm_monai.engines.trainer.multiplies_faster", lambda dtype, device: False)
        yield


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Outputs of the published code."""
    return json.loads((Path(__file__).parent / "data" / "golden_pretraining.json").read_text())


@pytest.fixture(scope="session")
def arr() -> Any:
    """The recipe, as a fixture."""
    return recipe


@pytest.fixture(scope="session")
def fill() -> Any:
    """Give a network the weights that the recipe makes from its published parameter names."""

    def fill_network(network: nn.Module, std: float) -> nn.Module:
        state = {}
        for key, value in network.state_dict().items():
            name = published_name(key)
            owner = name.split(".")[-2] if "." in name else ""
            is_scale = name.endswith("weight_g") or (
                owner in ("norm", "norm1", "norm2", "temporal_norm1") and name.endswith("weight")
            )
            state[key] = recipe(name, value.shape, std, 1.0 if is_scale else 0.0)
        network.load_state_dict(state)
        return network.eval()

    return fill_network


@pytest.fixture(scope="session")
def make_trainer() -> Any:
    """Factory of a tiny trainer on clips that are nothing but random views."""
    return build_trainer


CLIP_SHAPES = [(3, 2, 32, 32), (3, 4, 32, 32), (3, 2, 16, 16), (3, 2, 16, 16)]


class RandomViews(Randomizable, Transform):
    """Views that depend on the random state and on the clip; a clip that is None cannot be read."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["clip"] is None:
            raise ClipReadError("lost.mp4: no such clip")
        views = [torch.from_numpy(self.R.standard_normal(shape)).float() + data["clip"] for shape in CLIP_SHAPES]
        return {"image": views}


def prepare_random_views(batch: dict[str, Any], device: Any, non_blocking: bool) -> tuple[list[torch.Tensor], None]:
    return batch["image"] or [torch.empty(0, *shape) for shape in CLIP_SHAPES], None


def build_trainer(
    ckpt_dir: Any = None,
    *,
    epochs: int = 4,
    max_epochs: int | None = None,
    clips: Any = 10,
    batch_size: int = 2,
    workers: int = 0,
    accumulation: int = 1,
    resume: bool | str = False,
    drop_path_rate: float = 0.2,
    few_clips: bool = False,
    handlers: Any = (),
    **arguments: Any,
) -> StudentTeacherTrainer:
    torch.manual_seed(0)
    size = {"img_size": 32, "num_frames": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    backbone = EndoFM(**size, drop_path_rate=drop_path_rate, token_drop=0.5 if few_clips else 0)
    network = StudentTeacher(backbone, num_prototypes=12, hidden_dim=16, bottleneck_dim=8, batch_norm=few_clips)
    targets = {"targets": "sinkhorn", "queue_length": 10, "koleo_weight": 0.1} if few_clips else {}
    wrap = arguments.pop("wrap", lambda module: module)
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student))
    items = [{"clip": index / 10} for index in range(clips)] if isinstance(clips, int) else clips
    dataset = ClipDataset(items, RandomViews(), seed=5)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset),
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=collate_clips,
        worker_init_fn=survive_first_sigterm,
    )
    schedules = [
        ScheduleHandler(optimizer, "lr", CosineSchedule(1e-2, 1e-4, warmup_epochs=1), epochs),
        ScheduleHandler(optimizer, "weight_decay", CosineSchedule(0.04, 0.4), epochs),
        ScheduleHandler(network, "teacher_momentum", CosineSchedule(0.9, 1.0), epochs),
    ]
    checkpoints = [] if ckpt_dir is None else [TrainingCheckpointHandler(ckpt_dir, resume=resume)]
    return StudentTeacherTrainer(
        device="cpu",
        max_epochs=max_epochs or epochs,
        train_data_loader=loader,
        network=wrap(network),
        optimizer=optimizer,
        loss_function=SpatialTemporalMatchingLoss(num_prototypes=12, **targets),
        prepare_batch=prepare_random_views,
        train_handlers=[
            *schedules,
            GradientHandler(max_norm=1.0, freeze_last_layer_epochs=1),
            TeacherUpdateHandler(),
            *handlers,
            *checkpoints,
        ],
        accumulation_steps=accumulation,
        **arguments,
    )
