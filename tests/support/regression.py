# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Randomizable, Transform
from torch import nn

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler, collate_clips
from endofm_monai.engines import ClipTrainer
from endofm_monai.handlers import (
    GradientHandler,
)
from endofm_monai.networks.nets import EndoFM


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
