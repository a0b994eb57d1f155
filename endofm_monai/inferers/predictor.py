# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from monai.data import ThreadBuffer
from torch import nn

from endofm_monai.data import ClipInfo, ClipReader, open_clip
from endofm_monai.networks import unwrap

__all__ = ["Answer", "Predictor"]

Answer = dict[str, torch.Tensor]
"""What a task's network says of a frame, on the CPU; the keys are the task's, see the predictors."""

MODES = ("offline", "online")


class Predictor(ABC):
    """The one way through a video: frames in order, each decoded once and encoded once, in bounded memory.

    Offline an answer may look at later frames and so comes some frames later; online, for live use, it comes at once
    and looks at earlier frames alone. How many frames are pushed at a time makes no difference to the answers.

    Args:
        network: the task's network, perhaps in ``DistributedDataParallel``, or an exported one.
        mode: ``"offline"`` or ``"online"``.
        block: frames that are decoded and encoded at a time.
        amp: compute the network in lower precision.
        amp_dtype: which one.

    Example::

        predictor = load_predictor("bundle/endofm_polyp_segmentation")
        for frame, answer in predictor("colonoscopy.mp4"):  # uint8 (3, H, W), and a dictionary
            print(answer["mask"].sum())
    """

    task: ClassVar[str]

    def __init__(
        self,
        network: nn.Module,
        mode: str = "offline",
        block: int = 8,
        amp: bool = False,
        amp_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'`mode` must be "offline" or "online", but got {mode!r}.')
        self.network = unwrap(network)
        self.mode = mode
        self.block = block
        self.amp = amp
        self.amp_dtype = amp_dtype
        self.begin()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(iter([*self.network.parameters(), *self.network.buffers(), torch.empty(0)])).device

    def __call__(self, source: Any) -> Iterator[tuple[torch.Tensor, Answer]]:
        """Go through a clip.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens, or an open reader.

        Yields:
            each frame, uint8 RGB ``(3, H, W)``, and what is said of it.

        Raises:
            ClipReadError: when a frame cannot be read; frames before it have been answered.
        """
        if not isinstance(source, ClipReader):
            with open_clip(source) as reader:
                yield from self(reader)
            return
        info = source.probe()
        self.begin(info)
        for frames in ThreadBuffer(self._blocks(source, info.frames), buffer_size=1):
            yield from self.push(frames)
        yield from self.flush()

    def pieces(self, reader: ClipReader) -> Iterator[tuple[torch.Tensor, Answer]]:
        """What results are written of: the frames; where a task answers by windows, these."""
        return self(reader)

    @abstractmethod
    def begin(self, info: ClipInfo | None = None) -> None:
        """Forget all frames, and begin a video, of which nothing is known without ``info``."""

    @abstractmethod
    def push(self, frames: torch.Tensor) -> list[tuple[torch.Tensor, Answer]]:
        """Take the next frames of a video, uint8 RGB ``(3, T, H, W)``; gives those that are due with their answers."""

    @abstractmethod
    def flush(self) -> list[tuple[torch.Tensor, Answer]]:
        """Answer for the last frames of a video, after which none comes."""

    @abstractmethod
    def at(self, source: Any, index: int) -> Answer:
        """What is said of frame ``index`` of a clip, as by going through it, at the cost of the frames it needs."""

    @abstractmethod
    def uncertainty(self, answer: Answer) -> float:
        """How uncertain an answer is, from 0 to 1."""

    def _blocks(self, reader: ClipReader, frames: int) -> Iterator[torch.Tensor]:
        for start in range(0, frames, self.block):
            yield reader.read(range(start, min(start + self.block, frames)))
