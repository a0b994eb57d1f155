# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

__all__ = ["MaskFromLogits", "MaskFromLogitsd"]


class MaskFromLogits(Transform):
    """Make masks of the size of the frames out of a segmenter's logits.

    Probabilities, not masks, are resized, bilinearly. A pixel is foreground where the background has a probability
    below one half; with two classes that is the argmax.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __call__(self, logits: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the masks.

        Args:
            logits: ``(K, T, h, w)``, the background first.
            like: any tensor ``(..., H, W)`` of the frames' size.

        Returns:
            uint8 masks ``(1, T, H, W)``, 0 or 1, and float32 probabilities of the foreground of the same shape.
        """
        probability = 1 - logits.float().softmax(dim=0)[:1]
        if probability.shape[-2:] != like.shape[-2:]:
            frames = F.interpolate(probability.transpose(0, 1), like.shape[-2:], mode="bilinear", antialias=True)
            probability = frames.transpose(0, 1)
        return (probability > 0.5).to(torch.uint8), probability


class MaskFromLogitsd(MapTransform):
    """Dictionary version of :class:`MaskFromLogits`.

    Args:
        keys: key of the logits, which become masks.
        like_key: key of the tensor of the frames' size.
        probability_key: key for the probabilities.
        logits_key: key under which the logits are kept.
    """

    backend = MaskFromLogits.backend

    def __init__(
        self,
        keys: KeysCollection,
        like_key: str,
        probability_key: str = "probability",
        logits_key: str = "logits",
    ) -> None:
        super().__init__(keys)
        self.like_key = like_key
        self.probability_key = probability_key
        self.logits_key = logits_key
        self.transform = MaskFromLogits()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the masks; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.logits_key] = d[key]
            d[key], d[self.probability_key] = self.transform(d[key], d[self.like_key])
        return d
