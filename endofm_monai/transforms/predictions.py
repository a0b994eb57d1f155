# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from endofm_monai.transforms.base import dictionary_version

__all__ = ["MaskFromLogits", "MaskFromLogitsd", "PerFrame", "PerFramed"]


class MaskFromLogits(Transform):
    """Make masks of the size of the frames out of a segmenter's logits.

    Probabilities, not masks, are resized, bilinearly. A pixel is foreground where the background has a probability
    below one half; with two classes that is the argmax.
    """

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
    """Dictionary version of :class:`MaskFromLogits`: masks take the place of logits, which move to ``logits``.

    Args:
        keys: key of the logits.
        like_key: key of the tensor of the frames' size.
    """

    def __init__(self, keys: KeysCollection, like_key: str) -> None:
        super().__init__(keys)
        self.like_key = like_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the masks, and ``probability``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d["logits"] = d[key]
            d[key], d["probability"] = MaskFromLogits()(d[key], d[self.like_key])
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


PerFramed = dictionary_version(PerFrame)
