# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.engines.clip_trainer import ClipTrainer
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks import unwrap

__all__ = ["StudentTeacherTrainer"]


class StudentTeacherTrainer(ClipTrainer):
    """Self-supervised pre-training of a student and its teacher on views of clips.

    An iteration runs the student on all views and the teacher on the global ones, and takes the gradient of their
    matching loss. The teacher's update is a handler, as schedules, gradient clipping and checkpoints are.

    After an iteration ``state.output`` holds ``image`` (the views) and ``loss``, the mean over the clips of all
    ranks; the loss is absent when no rank had a readable clip, and nothing was learned from that batch.

    Args: those of :class:`ClipTrainer`, of which
        network: a :class:`endofm_monai.networks.nets.StudentTeacher`, perhaps in ``DistributedDataParallel``.
        optimizer: optimizer of the student's parameters.
        loss_function: the matching loss.
        prepare_batch: from a batch to its list of views ``(B, 3, T, H, W)`` on the device.
        amp: compute in lower precision; the loss and the head's last layer stay in float32.
    """

    loss_function: SpatialTemporalMatchingLoss

    def checkpoint_parts(self) -> dict[str, Any]:
        """Student, teacher, loss (with the centre), optimizer and gradient scaler."""
        pair = unwrap(self.network)
        return {
            "student": pair.student,
            "teacher": pair.teacher,
            "loss": self.loss_function,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }

    def network_to_share(self) -> nn.Module:
        """The backbone of the teacher."""
        return unwrap(self.network).teacher.backbone

    def _iteration(self, engine: StudentTeacherTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Learn from one batch; see the class."""
        last = engine._start_iteration()
        views, _ = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        engine.state.output = {CommonKeys.IMAGE: views}
        clips = views[0].shape[0]
        clips = idist.all_reduce(clips) if idist.get_world_size() > 1 else clips
        engine._clips_in_step += clips
        postpone = isinstance(engine.network, DistributedDataParallel) and not last
        with engine.network.no_sync() if postpone else nullcontext():
            loss = engine._matching_loss(views, update_center=last)
            if clips > 0:
                engine.state.output[CommonKeys.LOSS] = engine.loss_function.total
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
            engine._backward(loss)
        if last and engine._clips_in_step > 0:
            engine._step()
        return engine.state.output

    def _matching_loss(self, views: list[torch.Tensor], update_center: bool) -> torch.Tensor:
        clips = views[0].shape[0]
        if clips == 0:  # take part in the collective calls all the same, with a loss of zero
            views = [view.new_zeros((1, *view.shape[1:])) for view in views]
        with self._autocast():
            student_logits, teacher_logits = self.network(views)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        return self.loss_function(student_logits[:, :clips], teacher_logits[:, :clips], update_center=update_center)
