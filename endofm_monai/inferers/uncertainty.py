# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["class_entropy", "mask_entropy", "score_margin"]


def class_entropy(probabilities: torch.Tensor, multi_label: bool = False) -> torch.Tensor:
    """Uncertainty of a classifier: the entropy of its classes, as a share of the largest there can be.

    Args:
        probabilities: ``(N, K)``, K at least 2 unless ``multi_label``.
        multi_label: the classes do not exclude each other; the mean over them of the entropy of yes and no.

    Returns:
        ``(N,)`` in 0 to 1.
    """
    if multi_label:
        return _binary_entropy(probabilities).mean(dim=1)
    return torch.special.entr(probabilities).sum(dim=1) / math.log(probabilities.shape[1])


def mask_entropy(probability: torch.Tensor) -> torch.Tensor:
    """Uncertainty of a segmenter: the mean over the pixels of the entropy of foreground and background.

    Args:
        probability: probability of the foreground, ``(N, ..., H, W)``.

    Returns:
        ``(N,)`` in 0 to 1.
    """
    return _binary_entropy(probability).flatten(1).mean(dim=1)


def score_margin(scores: Sequence[torch.Tensor], threshold: float = 0.5) -> torch.Tensor:
    """Uncertainty of a detector: how near the score of its least certain box is to the threshold.

    Args:
        scores: for each of N frames the scores ``(D,)`` of its boxes, in 0 to 1.
        threshold: the score from which on a box counts as a detection, in (0, 1).

    Returns:
        ``(N,)``: 1 for a box at the threshold, 0 for scores of 0 and 1 and for frames with no box.
    """
    margins = [(frame - threshold).abs() / torch.where(frame < threshold, threshold, 1 - threshold) for frame in scores]
    return torch.stack([1 - margin.min() if len(margin) else torch.tensor(0.0) for margin in margins])


def _binary_entropy(probability: torch.Tensor) -> torch.Tensor:
    return (torch.special.entr(probability) + torch.special.entr(1 - probability)) / math.log(2)
