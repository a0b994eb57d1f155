# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from monai.data import DataLoader, MetaTensor, list_data_collate
from monai.engines import SupervisedEvaluator
from torch import nn

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler
from endofm_monai.networks.nets import EndoFM


def load_clip(item: dict[str, Any]) -> dict[str, Any]:
    """A clip (3, 2, 16, 16) of noise on a pattern of its class, with the metadata of a read file."""
    if item.get("unreadable"):
        raise ClipReadError(f"{item['image']}: truncated")
    number = int(item["image"].removeprefix("clip").removesuffix(".mp4"))
    label = item.get("label")
    pattern = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(label if isinstance(label, int) else 9))
    noise = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(100 + number))
    return {**item, "image": MetaTensor(pattern + 0.3 * noise, meta={"filename_or_obj": item["image"]})}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    read = [item for item in items if "broken" not in item]
    batch = list_data_collate(read) if read else {"image": torch.empty(0, 3, 2, 16, 16)}
    return {**batch, "broken": [item["broken"] for item in items if "broken" in item]}


def build_loader(
    labels: Sequence[Any], unreadable: Sequence[int] = (), batch_size: int = 2, shuffle: bool = False
) -> DataLoader:
    items: list[dict[str, Any]] = [{"image": f"clip{i}.mp4", "index": i} for i in range(len(labels))]
    for number, label in enumerate(labels):
        if label is not None:
            items[number]["label"] = label
        items[number]["unreadable"] = number in unreadable
    dataset = ClipDataset(items, load_clip)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=EpochSampler(dataset, shuffle=shuffle, seed=3), collate_fn=collate
    )


@pytest.fixture
def make_clip_loader() -> Callable[..., DataLoader]:
    """Factory of a loader of clips ``clip0.mp4``, ``clip1.mp4``, ... with labels (None for a clip without)."""
    return build_loader


@pytest.fixture
def backbone() -> EndoFM:
    torch.manual_seed(0)
    return EndoFM(img_size=16, patch_size=8, num_frames=2, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.5)


@pytest.fixture
def make_evaluator(backbone: EndoFM) -> Callable[..., SupervisedEvaluator]:
    """Factory of an evaluator of a loader's clips, by a backbone."""

    def build(loader: DataLoader, handlers: Sequence[Any], network: nn.Module = backbone) -> SupervisedEvaluator:
        return SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=loader, network=network, val_handlers=handlers
        )

    return build
