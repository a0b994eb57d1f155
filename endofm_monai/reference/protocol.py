# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0
"""How the published code trains and scores otherwise than the corrected defaults, to compare with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import nn

from endofm_monai.engines import StudentTeacherTrainer
from endofm_monai.handlers.training import GradientHandler
from endofm_monai.losses import DetectionLoss
from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks import DetectionHead
from endofm_monai.networks.nets import EndoFM, EndoFMDetector, StudentTeacher
from endofm_monai.optimizers import CosineSchedule, PolynomialSchedule, weight_decay_groups

__all__ = [
    "ReferenceCosineSchedule", "ReferenceDetectionLoss", "ReferenceDetector", "ReferenceGradientHandler",
    "ReferencePolynomialSchedule", "ReferenceStepSchedule", "ReferenceStudentTeacher", "reference_bias_groups",
    "reference_clip_scores", "reference_decay_groups",
]  # fmt: skip


class ReferenceDetector(EndoFMDetector):
    """Detector whose layers of offsets stay at their random weights, and which begins with boxes of no size."""

    def __init__(self, backbone: EndoFM, neck: nn.Module, head: DetectionHead, frames: str = "per_frame") -> None:
        super().__init__(backbone, neck, head, frames)
        for transformation in (head.class_transformation, head.box_transformation):
            transformation.conv_offset.requires_grad_(False)
        nn.init.zeros_(head.regression.bbox_reg.bias)


class ReferenceDetectionLoss(DetectionLoss):
    """Learns nothing from frames without a box."""

    def classified(self, boxes: Sequence[torch.Tensor]) -> list[bool]:
        return [len(box) > 0 for box in boxes]


class ReferenceStudentTeacher(StudentTeacher):
    """Keeps drop path active in the teacher, so that the targets are noisy."""

    def train(self, mode: bool = True) -> ReferenceStudentTeacher:
        super().train(mode)
        self.teacher.train(mode)
        return self


class ReferenceGradientHandler(GradientHandler):
    """Pre-training: clips the norm of each tensor to ``max_norm`` on its own."""

    def __init__(self, max_norm: float = 3.0, freeze_last_layer_epochs: int = 0) -> None:
        super().__init__(None, freeze_last_layer_epochs)
        self.max_norm_of_each = max_norm

    def attach(self, engine: Engine) -> None:
        if not isinstance(engine, StudentTeacherTrainer):
            raise ValueError("reference.json is of a student and its teacher: leave it out with vcl.json.")
        super().attach(engine)

    def _clip(self, engine: Engine) -> None:
        super()._clip(engine)
        for parameter in unwrap(engine.network).parameters():
            if parameter.grad is not None:
                parameter.grad.mul_((self.max_norm_of_each / (parameter.grad.norm() + 1e-6)).clamp(max=1))


def reference_decay_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Pre-training: :func:`weight_decay_groups` in which class token and positional tables decay too."""
    decayed, free = weight_decay_groups(network)
    decayed["params"] += [parameter for parameter in free["params"] if parameter.ndim > 1]
    free["params"] = [parameter for parameter in free["params"] if parameter.ndim == 1]
    return [decayed, free]


def reference_bias_groups(network: nn.Module, learning_rate: float, weight_decay: float = 1e-4) -> list[dict[str, Any]]:
    """Detection: biases learn twice as fast and do not decay, all else decays; see :func:`layer_decay_groups`."""
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    weights = [parameter for name, parameter in learning.items() if "bias" not in name]
    biases = [parameter for name, parameter in learning.items() if "bias" in name]
    return [
        {"params": weights, "lr": learning_rate, "lr_scale": 1.0, "weight_decay": weight_decay},
        {"params": biases, "lr": learning_rate * 2.0, "lr_scale": 2.0, "weight_decay": 0.0},
    ]


class ReferenceCosineSchedule(CosineSchedule):
    """Classification: keeps the value of an epoch's first step for all of the epoch."""

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return super().__call__(step - step % steps_per_epoch, steps_per_epoch, epochs)


class ReferencePolynomialSchedule(PolynomialSchedule):
    """Segmentation: updates the value after a step, so that the first two steps have the value ``start``."""

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return super().__call__(max(step - 1, 0), steps_per_epoch, epochs)


@dataclass
class ReferenceStepSchedule:
    """Detection: ``start`` after a warm-up of 8,000 steps from a third of it, halved at three steps."""

    start: float

    def __call__(self, step: int, steps_per_epoch: int = 0, epochs: int = 0) -> float:
        """Value at the optimizer step ``step``, counted from 0, whatever the length of an epoch."""
        passed = sum(milestone <= step for milestone in (64000, 80000, 88000))
        return self.start * (1 / 3 + 2 / 3 * min(step / 8000, 1.0)) * 0.5**passed


def reference_clip_scores(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Segmentation: ``dice`` and ``hd95`` of a clip, of boolean masks ``(T, h, w)`` at the network's size.

    The clip is one volume: Dice of the pixels of all frames; HD95 is the 95th percentile of the distances from either
    surface to the other one in a single list, where one frame is as far as one pixel. With no true foreground a
    prediction has a Dice of 1, and no prediction has a Dice of 0, also where nothing was to be found; HD95 is then 0.
    """
    if not prediction.any() or not truth.any():
        return {"dice": float(prediction.any()), "hd95": 0.0}
    dice = 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + np.count_nonzero(truth))
    surface, true_surface = (mask & ~binary_erosion(mask) for mask in (prediction, truth))
    distances = distance_transform_edt(~true_surface)[surface], distance_transform_edt(~surface)[true_surface]
    return {"dice": float(dice), "hd95": float(np.percentile(np.concatenate(distances), 95))}
