# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from monai.data import DataLoader, MetaTensor

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler, collate_clips
from endofm_monai.engines import ClipEvaluator
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


def build_loader(
    labels: Sequence[Any], unreadable: Sequence[int] = (), batch_size: int = 2, shuffle: bool = False
) -> DataLoader:
    items: list[dict[str, Any]] = [{"image": f"clip{i}.mp4"} for i in range(len(labels))]
    for number, label in enumerate(labels):
        if label is not None:
            items[number]["label"] = label
        items[number]["unreadable"] = number in unreadable
    dataset = ClipDataset(items, load_clip)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=EpochSampler(dataset, shuffle=shuffle, seed=3), collate_fn=collate_clips
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
def make_evaluator(backbone: EndoFM) -> Callable[..., ClipEvaluator]:
    """Factory of an evaluator of a loader's clips."""

    def build(loader: DataLoader, handlers: Sequence[Any]) -> ClipEvaluator:
        return ClipEvaluator(torch.device("cpu"), loader, backbone, val_handlers=handlers)

    return build
