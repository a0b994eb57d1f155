# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from endofm_monai.data import ClipInfo, ClipReader, ClipReadError

__all__ = ["MemoryClip", "noise"]


def noise(frames: int, height: int = 40, width: int = 60) -> torch.Tensor:
    """Frames of noise, uint8 ``(3, T, H, W)``."""
    random = torch.Generator().manual_seed(frames)
    return torch.randint(0, 256, (3, frames, height, width), dtype=torch.uint8, generator=random)


class MemoryClip(ClipReader):
    """A clip in memory that notes which frames were decoded; frame ``broken`` cannot be."""

    def __init__(self, clip: torch.Tensor, fps: float = 30.0, broken: int | None = None) -> None:
        super().__init__("memory.mp4")
        self.clip = clip
        self.fps = fps
        self.broken = broken
        self.decoded: list[int] = []

    def _probe(self) -> ClipInfo:
        _, frames, height, width = self.clip.shape
        return ClipInfo(frames, self.fps, height, width, frames / self.fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            if index == self.broken:
                raise ClipReadError(f"{self.path}: frame {index} cannot be decoded")
            self.decoded.append(index)
            yield index, self.clip[:, index].permute(1, 2, 0).numpy()
