# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The weights that come with the project, on the stills that come with it, of which they learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from endofm_monai.apps.sharing.publish import check_large_files
from endofm_monai.data import mask_boxes, read_mask
from endofm_monai.inferers import load_predictor

ROOT = Path(__file__).parents[2]
STILLS = ROOT / "datasets" / "sample" / "stills"
TASKS = ("segmentation", "detection", "classification")
POLYPS, OTHERS = (range(first, 40, 4) for first in (1, 2))  # a still with an odd number shows a polyp


def bundle(task: str) -> Path:
    return ROOT / "bundle" / f"endofm_polyp_{task}"


def answers(task: str, numbers: range) -> list[dict[str, torch.Tensor]]:
    predictor = load_predictor(bundle(task))
    return [predictor.at(str(STILLS / f"{number:02}.jpg"), 0) for number in numbers]


@pytest.mark.parametrize("task", TASKS)
def test_files_are_the_listed_ones_and_small(task):
    (file,) = check_large_files(bundle(task))
    assert file.stat().st_size < 25_000_000  # the Model Zoo's limit
    assert file == bundle(task) / "models" / "model.safetensors"


def test_all_together_are_small():
    assert sum((bundle(task) / "models" / "model.safetensors").stat().st_size for task in TASKS) < 45_000_000


def test_masks_lie_on_the_polyps_and_nowhere_else():
    dice = []
    for number, answer in zip(POLYPS, answers("segmentation", POLYPS), strict=True):
        found, truth = answer["mask"][0].numpy() > 0, read_mask(STILLS / f"{number:02}.png")
        dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert np.mean(dice) > 0.75
    shares = [float((answer["mask"] > 0).float().mean()) for answer in answers("segmentation", OTHERS)]
    assert np.median(shares) < 0.005


def test_boxes_lie_on_the_polyps_and_nowhere_else():
    overlaps, scores = [], []
    for number, answer in zip(POLYPS, answers("detection", POLYPS), strict=True):
        best = answer["box"][answer["label_scores"].argmax()]
        truth = torch.tensor(mask_boxes(read_mask(STILLS / f"{number:02}.png")), dtype=torch.float32)
        overlaps.append(float(box_iou(best[None], truth).max()))
        scores.append(float(answer["label_scores"].max()))
    assert np.mean(np.array(overlaps) > 0.5) > 0.7
    alarms = [
        float(answer["label_scores"].amax()) if len(answer["box"]) else 0 for answer in answers("detection", OTHERS)
    ]
    assert np.median(alarms) < 0.7 * np.median(scores)


def test_classes_tell_polyps_from_mucosa():
    probabilities = [
        [float(answer["probabilities"][1]) for answer in answers("classification", part)] for part in (POLYPS, OTHERS)
    ]
    assert np.mean(probabilities[0]) > np.mean(probabilities[1]) + 0.4
