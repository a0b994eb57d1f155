# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from endofm_monai.apps.streaming import Detections, StreamingDetector
from endofm_monai.data import open_clip

__all__ = ["VideoDetectionInferer", "read_blocks"]


class VideoDetectionInferer(Inferer):
    """Detects in whole videos of any length, which are read piece by piece.

    Args:
        block: frames that are read and encoded at a time.
        streaming: arguments of :class:`StreamingDetector`.

    Raises:
        ValueError: when that refuses them.
    """

    def __init__(self, block: int = 8, **streaming: Any) -> None:
        super().__init__()
        StreamingDetector(nn.Linear(1, 1), **streaming)  # what it refuses shall not come after an epoch of training
        self.block = block
        self.streaming = streaming

    def __call__(self, inputs: Sequence[Any], network: nn.Module, *args: Any, **kwargs: Any) -> list[list[Detections]]:
        """Detect.

        Args:
            inputs: videos: what :func:`endofm_monai.data.open_clip` opens.
            network: an :class:`endofm_monai.networks.nets.EndoFMDetector`.
            args: not used.
            kwargs: not used.

        Returns:
            the detections of each frame of each video, on the CPU.

        Raises:
            ClipReadError: when a frame cannot be read.
        """
        detector = StreamingDetector(network, **self.streaming)
        return [
            [
                {name: value.cpu() for name, value in detections.items()}
                for _, detections in detector.detect(read_blocks(source, self.block), video=str(source))
            ]
            for source in inputs
        ]


def read_blocks(source: str | os.PathLike | Sequence[str], block: int) -> Iterator[torch.Tensor]:
    """Frames of a clip, ``block`` at a time: uint8 ``(3, T, H, W)``."""
    with open_clip(source) as reader:
        frames = reader.probe().frames
        for start in range(0, frames, block):
            yield reader.read(range(start, min(start + block, frames)))
