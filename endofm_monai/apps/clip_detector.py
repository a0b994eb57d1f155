# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from endofm_monai.apps.streaming import Detections, StreamingDetector
from endofm_monai.transforms import FitClip, NormalizeClip

__all__ = ["ClipDetector"]


class ClipDetector:
    """Detector in the form that MONAI Label asks for: called with images, it gives a dictionary for each.

    Args:
        network: an :class:`endofm_monai.networks.nets.EndoFMDetector`.
        fit: brings frames to the network's size.
        normalize: brings pixels to the network's range.
        close_up: see :class:`StreamingDetector`.

    Example::

        detector = ClipDetector(network, FitClip(640))
        detector(torch.zeros(1, 3, 480, 640, dtype=torch.uint8))[0]["box"]  # (D, 4)
    """

    def __init__(
        self,
        network: nn.Module,
        fit: FitClip,
        normalize: NormalizeClip | None = None,
        close_up: float | None = None,
    ) -> None:
        self.network = network
        self.fit = fit
        self.normalize = normalize
        self.close_up = close_up

    def __call__(self, inputs: torch.Tensor | Sequence[torch.Tensor], use_inferer: bool = True) -> list[Detections]:
        """Detect.

        Args:
            inputs: images ``(3, H, W)``, or clips ``(3, T, H, W)`` whose first frame is to be looked at and whose
                others support it; uint8 RGB ``0..255``, rows first.
            use_inferer: not used; MONAI Label passes it.

        Returns:
            ``box``, ``label`` and ``label_scores`` of each image, boxes xyxy in its pixels.
        """
        self.network.eval()
        detector = StreamingDetector(self.network, self.fit, self.normalize, close_up=self.close_up)
        found = []
        for clip in (image.unsqueeze(1) if image.ndim == 3 else image for image in inputs):
            key, *supports = detector.encode(clip)
            detections = detector.refine(key, supports, clip.shape[-2:])
            found.append(detections if detector.close_up is None else detector.close_up(clip[:, :1], detections))
        return found
