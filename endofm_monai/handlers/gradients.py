# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from endofm_monai.networks import unwrap

__all__ = ["GradientHandler"]


class GradientHandler:
    """Treats the gradients between backward pass and optimizer step of a :class:`ClipTrainer`.

    In pre-training these are the student's, and its projection head's last layer gets none in the first
    ``freeze_last_layer_epochs``; then gradients are clipped. The norm before clipping is left in
    ``engine.state.gradient_norm``.

    Args:
        max_norm: largest L2 norm of all gradients together; None leaves them.
        freeze_last_layer_epochs: epochs in which the last layer keeps its initial directions.
        reference_clip_per_tensor: clip each tensor's norm on its own, as the published code does.
    """

    def __init__(
        self,
        max_norm: float | None = 3.0,
        freeze_last_layer_epochs: int = 0,
        reference_clip_per_tensor: bool = False,
    ) -> None:
        self.max_norm = max_norm
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.reference_clip_per_tensor = reference_clip_per_tensor

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze, measure and clip."""
        network = unwrap(engine.network)
        if engine.state.epoch <= self.freeze_last_layer_epochs:
            for parameter in network.student.head.last_layer.parameters():
                parameter.grad = None
        parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
        gradients: list[torch.Tensor] = [parameter.grad for parameter in parameters]
        engine.state.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.max_norm is None:
            return
        if self.reference_clip_per_tensor:
            for gradient in gradients:
                gradient.mul_((self.max_norm / (gradient.norm() + 1e-6)).clamp(max=1))
        else:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, engine.state.gradient_norm)
