# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class ClassificationLoss(nn.Module):
    """Cross-entropy of classes that exclude each other, or binary cross-entropy of each class; the labels tell which.

    Args:
        class_weights: weight of each class; None for equal ones. Of classes that do not exclude each other it is the
            weight of those items that have the class.
        label_smoothing: share of the target that is spread evenly over all classes, or over yes and no.
    """

    class_weights: torch.Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights).float()
        self.register_buffer("class_weights", weights, persistent=False)  # else those of a checkpoint would count
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean float32 loss of logits ``(B, C)`` for class indices ``(B,)``, or 0 or 1 of each class ``(B, C)``."""
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        logits = logits.float()
        if labels.ndim == 1:
            losses = F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing, reduction="none")
            return losses.mean()  # torch's own divides by the batch's weights: a batch of one would not be weighted
        targets = labels.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
