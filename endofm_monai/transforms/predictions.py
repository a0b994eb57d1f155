# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

__all__ = ["MaskFromLogits", "MaskFromLogitsd", "PerFrame", "PerFramed"]


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


class PerFrame(Transform):
    """Apply a transform of images to each frame of a clip.

    MONAI's post-processing takes time for a third axis of space otherwise: the largest component of a clip would be
    one polyp in some frames.

    Args:
        transform: from ``(C, H, W)`` to the same shape, for example MONAI's ``KeepLargestConnectedComponent``.
    """

    def __init__(self, transform: Callable[[torch.Tensor], Any]) -> None:
        self.transform = transform

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        """Transform ``(C, T, H, W)``; the type stays."""
        frames = [torch.as_tensor(self.transform(frame)) for frame in clip.unbind(1)]
        return torch.stack(frames, 1).to(clip.dtype)


class PerFramed(MapTransform):
    """Dictionary version of :class:`PerFrame`.

    Args:
        keys: keys of the clips.
        transform: see :class:`PerFrame`.
    """

    def __init__(self, keys: KeysCollection, transform: Callable[[torch.Tensor], Any]) -> None:
        super().__init__(keys)
        self.transform = PerFrame(transform)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the clips at ``keys``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d
