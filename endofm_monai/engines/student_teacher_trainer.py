# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer, Trainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks import unwrap

__all__ = ["StudentTeacherTrainer"]


class StudentTeacherTrainer(SupervisedTrainer):
    """Self-supervised pre-training of a student and its teacher on views of clips.

    An iteration runs the student on all views and the teacher on the global ones, and takes the gradient of their
    matching loss. With ``accumulation_steps`` above 1 only the last iteration of a group makes an optimizer step;
    ``IterationEvents.BACKWARD_COMPLETED`` (gradients complete and unscaled) and ``MODEL_COMPLETED`` (student updated)
    fire once a step. Schedules, the teacher's update, gradient clipping and checkpoints are handlers.

    After an iteration ``state.output`` holds ``image`` (the views) and ``loss``, the mean over the clips of all
    ranks; the loss is absent when no rank had a readable clip, and nothing was learned from that batch.

    Args:
        device: where to run.
        max_epochs: number of epochs.
        train_data_loader: loader of batches for ``prepare_batch``.
        network: a :class:`endofm_monai.networks.nets.StudentTeacher`, perhaps in ``DistributedDataParallel``.
        optimizer: optimizer of the student's parameters.
        loss_function: the matching loss.
        prepare_batch: from a batch to its list of views ``(B, 3, T, H, W)`` on the device.
        train_handlers: MONAI or ignite handlers.
        amp: compute in lower precision; the loss and the head's last layer stay in float32.
        amp_kwargs: arguments of ``torch.autocast``; ``dtype`` is ``torch.bfloat16`` unless said otherwise, and with
            ``torch.float16`` gradients are scaled.
        accumulation_steps: iterations whose gradients make one optimizer step.
        compile: compile each transformer block with ``torch.compile``.
        compile_kwargs: arguments of ``torch.compile``.
        epoch_length: iterations of an epoch; all batches by default.
        non_blocking: let copies to the device overlap with computation.

    Raises:
        ValueError: when an epoch would have no batch.
    """

    loss_function: SpatialTemporalMatchingLoss

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: SpatialTemporalMatchingLoss,
        prepare_batch: Callable,
        train_handlers: Sequence | None = None,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        accumulation_steps: int = 1,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        epoch_length: int | None = None,
        non_blocking: bool = False,
    ) -> None:
        if epoch_length == 0 or (epoch_length is None and len(train_data_loader) == 0):
            raise ValueError("An epoch has no batch: there are fewer clips than `batch_size`; lower it or add clips.")
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            train_handlers=train_handlers,
            amp=amp,
            amp_kwargs={"dtype": torch.bfloat16, **(amp_kwargs or {})},
            decollate=False,
            accumulation_steps=accumulation_steps,
        )
        device_type = torch.device(device).type
        self.scaler = torch.amp.GradScaler(device_type, enabled=amp and self.amp_kwargs["dtype"] == torch.float16)
        if compile:
            pair = unwrap(network)
            for block in (*pair.student.backbone.blocks, *pair.teacher.backbone.blocks):
                block.compile(**(compile_kwargs or {}))
        self._clips_in_step = 0

    def run(self) -> None:
        """Train from the present state on; the gradient scaler lives as long as the trainer."""
        super(Trainer, self).run()

    def _iteration(self, engine: StudentTeacherTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Learn from one batch; see the class."""
        views, _ = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        group_start, group_size = engine.accumulation_group()
        last = engine.state.iteration == group_start + group_size
        engine.state.output = {CommonKeys.IMAGE: views}
        engine.network.train()
        if engine.state.iteration == group_start + 1:
            engine.optimizer.zero_grad(set_to_none=True)
            engine._clips_in_step = 0
        clips = views[0].shape[0]
        clips = idist.all_reduce(clips) if idist.get_world_size() > 1 else clips
        engine._clips_in_step += clips

        postpone = isinstance(engine.network, DistributedDataParallel) and not last
        with engine.network.no_sync() if postpone else nullcontext():
            loss = engine._matching_loss(views, update_center=last)
            if clips > 0:
                engine.state.output[CommonKeys.LOSS] = engine.loss_function.total
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
            engine.scaler.scale(loss / group_size).backward()

        if last and engine._clips_in_step > 0:
            engine.scaler.unscale_(engine.optimizer)
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            engine.scaler.step(engine.optimizer)
            engine.scaler.update()
            engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def accumulation_group(self) -> tuple[int, int]:
        """The iteration before the present accumulation group, and its size; the last of an epoch is smaller."""
        epoch_length = self.state.epoch_length
        epoch_start = (self.state.iteration - 1) // epoch_length * epoch_length
        within = (self.state.iteration - 1 - epoch_start) // self.accumulation_steps * self.accumulation_steps
        return epoch_start + within, min(self.accumulation_steps, epoch_length - within)

    def _matching_loss(self, views: list[torch.Tensor], update_center: bool) -> torch.Tensor:
        clips = views[0].shape[0]
        if clips == 0:  # take part in the collective calls all the same, with a loss of zero
            views = [view.new_zeros((1, *view.shape[1:])) for view in views]
        with torch.autocast(views[0].device.type, enabled=self.amp, **self.amp_kwargs):
            student_logits, teacher_logits = self.network(views)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        return self.loss_function(student_logits[:, :clips], teacher_logits[:, :clips], update_center=update_center)
