# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

__all__ = ["PerFrame", "PerFramed"]


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
