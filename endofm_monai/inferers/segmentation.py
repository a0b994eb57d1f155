# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, sliding_window_inference

__all__ = ["MirrorInferer", "TemporalWindowInferer"]


class TemporalWindowInferer(Inferer):
    """Runs a network on windows of a clip's frames that overlap, and averages what it gives for each frame.

    So a long clip needs no more memory for the network than a window, and the network sees no more frames at once
    than it was trained with. Clips that are no longer than a window are run whole.

    Args:
        window: number of frames of a window.
        stride: frames from one window to the next, at most ``window``.
        batch_size: windows that are run together.

    Raises:
        ValueError: when ``stride`` is not from 1 to ``window``.

    Example::

        logits = TemporalWindowInferer(window=8, stride=4)(clip, segmenter)  # (B, K, T, H, W)
    """

    def __init__(self, window: int = 8, stride: int = 4, batch_size: int = 1) -> None:
        if not 1 <= stride <= window:
            raise ValueError(f"`stride` must be from 1 to `window`={window}, but got {stride}.")
        self.window = window
        self.stride = stride
        self.batch_size = batch_size

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run ``network`` on clips ``(B, C, T, H, W)``; its output has the same T, H and W."""
        if inputs.shape[2] <= self.window:
            return network(inputs, *args, **kwargs)
        overlap = 1 - (self.stride + 0.5) / self.window  # MONAI rounds the stride that this means down
        return sliding_window_inference(
            inputs,
            (self.window, *inputs.shape[3:]),
            self.batch_size,
            network,
            (max(overlap, 0.0), 0.0, 0.0),
            "constant",
            *args,
            **kwargs,
        )


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
