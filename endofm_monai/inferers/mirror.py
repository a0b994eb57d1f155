# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["MirrorInferer"]

MIRRORED_AXES = ((), (-1,), (-2,), (-2, -1))


class MirrorInferer(Inferer):
    """Averages the class probabilities of a clip and of its three mirror images: test-time augmentation.

    Endoscopes look from any side, so a frame has no up and no left. It takes four times as long.

    Args:
        inferer: how the network is run on each of them.
        mirror: False only runs ``inferer``.

    Example::

        logits = MirrorInferer(TemporalWindowInferer(window=8, stride=4))(clip, segmenter)  # (B, K, T, H, W)
    """

    def __init__(self, inferer: Inferer, mirror: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.mirror = mirror

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run ``network``, which gives class logits ``(B, K, T, H, W)``, on clips ``(B, C, T, H, W)``.

        Returns:
            logits of the mean probabilities ``(B, K, T, H, W)``; without ``mirror`` those of the network.
        """
        if not self.mirror:
            return self.inferer(inputs, network, *args, **kwargs)
        total = torch.zeros(())
        for axes in MIRRORED_AXES:
            logits = self.inferer(inputs.flip(axes), network, *args, **kwargs)
            total = total.to(logits) + logits.flip(axes).softmax(dim=1)
        mean = total / len(MIRRORED_AXES)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()  # finite, so that they can be resized
