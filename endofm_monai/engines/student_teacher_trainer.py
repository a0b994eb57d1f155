# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import PrepareBatch
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.engines.trainer import ClipTrainer
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks import unwrap
from endofm_monai.transforms import RandAugmentViewsd

__all__ = ["PrepareViews", "StudentTeacherTrainer"]


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


class PrepareViews(PrepareBatch):
    """Bring the views of a batch to the device, and make them there where the batch holds clips.

    What the batch of :func:`endofm_monai.data.collate_clips` holds decides: views that were made in the workers are
    moved; clips with ``view_frames`` are moved as uint8 and augmented on the device, each with its ``seed``, which
    gives the same views.

    Args:
        augment: the transform of a clip into views, whose plan also says the shapes for a batch without clips.
    """

    def __init__(self, augment: RandAugmentViewsd) -> None:
        self.augment = augment

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[torch.Tensor], None]:
        """Prepare a batch.

        Args:
            batchdata: batch of :func:`endofm_monai.data.collate_clips`.
            device: where the views shall be.
            non_blocking: let copies to the device overlap with computation.
            kwargs: further arguments of ``Tensor.to`` for the views.

        Returns:
            V tensors ``(B, 3, T, S, S)`` (B is 0 when no clip could be read), and None in place of labels.

        Raises:
            KeyError: when a batch of clips has no ``seed``.
        """
        images = batchdata[CommonKeys.IMAGE]
        if "view_frames" in batchdata:
            clips = [clip.to(device=device, non_blocking=non_blocking) for clip in images]
            items = zip(clips, batchdata["view_frames"], batchdata["seed"], strict=True)
            (key,) = self.augment.keys
            made = [self.augment({key: clip, "view_frames": f, "seed": s})[key] for clip, f, s in items]
            images = [torch.stack(views) for views in zip(*made, strict=True)]
        elif not images:
            plan = self.augment.transform.views
            images = [torch.empty(0, 3, view.frames, view.size, view.size) for view in plan]
        return [view.to(device=device, non_blocking=non_blocking, **kwargs) for view in images], None
