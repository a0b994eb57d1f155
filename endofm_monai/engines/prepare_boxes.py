# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.utils import CommonKeys

__all__ = ["PrepareKeyFrames", "PrepareVideos"]

Targets = list[dict[str, torch.Tensor]]


class PrepareKeyFrames(PrepareBatch):
    """Bring a batch of key frames with their supports and boxes to the device, to train a detector.

    Args:
        every_frame: learn from each frame of a clip as key frame with the others as supports, so that each frame that
            was encoded is used; otherwise from the first frame alone, as the published training does.
    """

    def __init__(self, every_frame: bool = True) -> None:
        self.every_frame = every_frame

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Targets, tuple, dict[str, bool]]:
        """Prepare a batch.

        Args:
            batchdata: batch of :func:`endofm_monai.data.collate_clips` with ``image`` ``(B, 3, T, H, W)``, and ``box``
                and ``box_label``, of each clip a list of T tensors.
            device: where the data shall be.
            non_blocking: let copies to the device overlap with computation.
            kwargs: further arguments of ``Tensor.to`` for the clips.

        Returns:
            clips; ``box`` and ``label`` of each key frame; and the further arguments of the network.
        """
        images = batchdata[CommonKeys.IMAGE].to(device=device, non_blocking=non_blocking, **kwargs)
        targets = [
            {"box": box.to(device, non_blocking=non_blocking), "label": label.to(device, non_blocking=non_blocking)}
            for boxes, labels in zip(batchdata["box"], batchdata["box_label"], strict=True)
            for box, label in list(zip(boxes, labels, strict=True))[: None if self.every_frame else 1]
        ]
        return images, targets, (), {"every_frame": self.every_frame}


class PrepareVideos(PrepareBatch):
    """Hand the videos of a batch on as they are listed, with the boxes of their frames, to evaluate a detector."""

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Prepare a batch; returns the sources of the videos, and their items without them."""
        sources = batchdata[CommonKeys.IMAGE]
        keys = [key for key in batchdata if key != CommonKeys.IMAGE]
        return sources, [{key: batchdata[key][index] for key in keys} for index in range(len(sources))]
