# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from monai.engines import PrepareBatch, SupervisedTrainer, Trainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, convert_to_tensor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from endofm_monai.data import count_clips
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks import DividedSpaceTimeBlock
from endofm_monai.networks.nets.frame_vit import FrameBlock
from endofm_monai.transforms import RandAugmentViewsd
from endofm_monai.transforms.joined_views import augment_batch
from endofm_monai.utils import multiplies_faster, name_memory_errors

__all__ = ["ClipTrainer", "PrepareKeyFrames", "PrepareViews", "PretrainingTrainer", "StudentTeacherTrainer"]

logger = logging.getLogger(__name__)


class ClipTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` for batches of :func:`endofm_monai.data.collate_clips`, on every device.

    With ``accumulation_steps`` above 1 only the last iteration of a group makes an optimizer step;
    ``IterationEvents.BACKWARD_COMPLETED`` (gradients complete and unscaled) and ``MODEL_COMPLETED`` (network updated)
    fire once a step. A batch in which a rank has no readable clip teaches nothing, on any rank: its output has no
    ``loss``. Schedules, gradient clipping, checkpoints and logs are handlers. Other arguments are MONAI's.

    Args:
        network: the network, perhaps in ``DistributedDataParallel``.
        loss_function: from what the network gives and the targets to the mean loss of the batch; a module is moved to
            the device.
        amp_kwargs: arguments of ``torch.autocast``; ``dtype`` is ``torch.bfloat16`` unless said otherwise, and with
            ``torch.float16`` gradients are scaled.
        compile: compile each transformer block with ``torch.compile``, with ``compile_kwargs``.
        kwargs: ``prepare_batch``, ``inferer``, ``train_handlers``, ``accumulation_steps``, ...; ``decollate`` is False
            unless said otherwise.
    """

    _learned = 0  # iterations of this group; a resumed training with another `accumulation_steps` begins within one

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: Any,
        *,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if len(train_data_loader) == 0:
            raise ValueError("An epoch has no batch: there are fewer clips than `batch_size`; lower it or add clips.")
        device, amp_kwargs = torch.device(device), {"dtype": torch.bfloat16, **(amp_kwargs or {})}
        if device.type == "cpu" and amp != (faster := multiplies_faster(amp_kwargs["dtype"], "cpu")):
            level = logging.WARNING if amp else logging.INFO
            logger.log(level, f"Training is faster on this CPU with `--amp {faster}`.")
        self.further_checkpoint_parts: dict[str, Any] = {}
        kwargs = {"decollate": False, **kwargs, "amp": amp, "amp_kwargs": amp_kwargs}
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **kwargs)
        if isinstance(loss_function, nn.Module):
            loss_function.to(device)  # as the weights of classes that a loss of MONAI or PyTorch holds
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp and amp_kwargs["dtype"] == torch.float16)
        self._autocast = torch.autocast(device.type, enabled=amp, **amp_kwargs)
        if compile:
            self._compile(**(compile_kwargs or {}))

    def _compile(self, **kwargs: Any) -> None:
        for block in unwrap(self.network).modules():
            if isinstance(block, (DividedSpaceTimeBlock, FrameBlock)):
                block.compile(**kwargs)

    def run(self) -> None:
        """Train from the present state on; the gradient scaler lives as long as the trainer."""
        advice = "lower `batch_size` (and raise `accumulation_steps`), or the size or number of the frames"
        with name_memory_errors(lambda: f"Training, iteration {self.state.iteration}", advice):
            super(Trainer, self).run()

    def checkpoint_parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name; handlers add theirs to ``further_checkpoint_parts``."""
        parts = {"network": unwrap(self.network), "optimizer": self.optimizer, "scaler": self.scaler}
        # what losses of MONAI and PyTorch hold, as weights of classes, are settings, which count as they are now
        is_ready_made = type(self.loss_function).__module__.startswith(("monai.", "torch."))
        if isinstance(self.loss_function, nn.Module) and self.loss_function.state_dict() and not is_ready_made:
            parts["loss"] = self.loss_function
        return parts | self.further_checkpoint_parts

    def network_to_share(self) -> nn.Module:
        """The network whose weights others start from."""
        return unwrap(self.network)

    def _group(self) -> tuple[int, int]:
        """Number of the present iteration in its accumulation group, from 1 on, and size of the group."""
        within = (self.state.iteration - 1) % self.state.epoch_length
        number = within % self.accumulation_steps
        return number + 1, min(self.accumulation_steps, self.state.epoch_length - within + number)

    def ends_step(self) -> bool:
        """Whether the present iteration is the last one of an optimizer step."""
        number, size = self._group()
        return number == size

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        number, size = self._group()
        self.network.train()
        if number == 1:
            self.optimizer.zero_grad(set_to_none=True)
            self._learned = 0
        self.state.output = {}
        loss = self._loss(batchdata)
        if loss is not None:
            self._learned += CommonKeys.LOSS in self.state.output
            self.fire_event(IterationEvents.LOSS_COMPLETED)
            self.scaler.scale(loss / size).backward()
        if number == size and self._learned:
            self.scaler.unscale_(self.optimizer)
            if self._learned < size:  # the mean is of those that there were
                gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
                torch._foreach_mul_(gradients, size / self._learned)
            self.fire_event(IterationEvents.BACKWARD_COMPLETED)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _loss(self, batchdata: dict[str, Any]) -> torch.Tensor | None:
        """Loss whose gradient is taken, None where nothing is learned; what there is of ``state.output`` is set."""
        clips = count_clips(batchdata[CommonKeys.IMAGE])
        total, fewest = idist.all_reduce(clips), idist.all_reduce(clips, op="MIN")
        if fewest == 0:
            return None
        inputs, targets, *more = self._prepare(batchdata)
        args, kwargs = more or ((), {})
        self.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        with self._autocast:
            self.state.output[CommonKeys.PRED] = prediction = self.inferer(inputs, self.network, *args, **kwargs)
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            loss = self.loss_function(prediction, targets).mean()
        # that of all clips: a process that alone found it not finite would stop, and all others wait for it
        self.state.output[CommonKeys.LOSS] = idist.all_reduce(loss.detach() * (clips / total))
        return loss * (clips * idist.get_world_size() / total)  # processes are averaged, clips shall be

    def _prepare(self, batchdata: dict[str, Any]) -> Any:
        inputs, targets, *more = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        # each operation on a tensor with metadata goes through Python, which takes a fifth of the time to launch it
        return *convert_to_tensor((inputs, targets)), *more


class PretrainingTrainer(ClipTrainer):
    """Self-supervised pre-training of a network's ``backbone``, which others start from; see :class:`ClipTrainer`."""

    def network_to_share(self) -> nn.Module:
        return unwrap(self.network).backbone


class StudentTeacherTrainer(PretrainingTrainer):
    """Self-supervised pre-training of a student and its teacher on views of clips.

    An iteration runs the student on all views and the teacher on the global ones, and takes the gradient of their
    matching loss. The teacher's update is a handler, as schedules, gradient clipping and checkpoints are. After an
    iteration ``state.output`` holds ``image`` (the views) and ``loss``, the mean over the clips of all ranks; the loss
    is absent when no rank had a readable clip, and nothing was learned from that batch.

    Args: those of :class:`ClipTrainer`, of which
        network: a :class:`endofm_monai.networks.nets.StudentTeacher`, perhaps in ``DistributedDataParallel``.
        prepare_batch: from a batch to its list of views ``(B, 3, T, H, W)`` on the device.
        amp: compute in lower precision; the loss and the head's last layer stay in float32.
        compile: compile the forward pass of student and teacher as one graph and, in a single process, the loss as
            another one.
    """

    loss_function: SpatialTemporalMatchingLoss

    def _compile(self, **kwargs: Any) -> None:
        unwrap(self.network).compile(**{"dynamic": False, **kwargs})  # batches are of one size, but for broken clips
        if idist.get_world_size() == 1:  # what ranks tell each other would break its graph
            self.loss_function.compile(**kwargs)

    def checkpoint_parts(self) -> dict[str, Any]:
        pair = unwrap(self.network)
        parts = {"student": pair.student, "teacher": pair.teacher, "loss": self.loss_function}
        return parts | {"optimizer": self.optimizer, "scaler": self.scaler} | self.further_checkpoint_parts

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        postpone = isinstance(self.network, DistributedDataParallel) and not self.ends_step()
        with self.network.no_sync() if postpone else nullcontext():
            return super()._iteration(engine, batchdata)

    def _loss(self, batchdata: dict[str, Any]) -> torch.Tensor:
        views, _ = self._prepare(batchdata)
        self.state.output = {CommonKeys.IMAGE: views}
        clips = views[0].shape[0]
        total = idist.all_reduce(clips)
        if clips == 0:  # take part in the collective calls all the same, with a loss of zero
            views = [view.new_zeros((1, *view.shape[1:])) for view in views]
        with self._autocast:
            student, teacher, class_tokens = self.network(views, clips)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = self.loss_function(student, teacher, class_tokens, update_center=self.ends_step())
        if total > 0:
            self.state.output[CommonKeys.LOSS] = self.loss_function.total
        return loss


@dataclass(eq=False)
class PrepareKeyFrames(PrepareBatch):
    """Bring a batch of key frames with their supports and boxes to the device, to train a detector.

    With ``every_frame`` each frame of a clip is a key frame with the others as its supports, so that each frame that
    was encoded is used; otherwise the first one alone is, as in the published training.
    """

    every_frame: bool = True

    def __call__(
        self, batchdata: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]], tuple, dict[str, bool]]:
        """Give the clips ``(B, 3, T, H, W)``, ``box`` and ``label`` of each key frame, and arguments of the network."""
        targets = [
            {"box": box.to(device, non_blocking=non_blocking), "label": label.to(device, non_blocking=non_blocking)}
            for boxes, labels in zip(batchdata["box"], batchdata["box_label"], strict=True)
            for box, label in list(zip(boxes, labels, strict=True))[: None if self.every_frame else 1]
        ]
        clips = batchdata[CommonKeys.IMAGE].to(device=device, non_blocking=non_blocking, **kwargs)
        return clips, targets, (), {"every_frame": self.every_frame}


@dataclass(eq=False)
class PrepareViews(PrepareBatch):
    """Bring the views of a batch to the device, and make them there where the batch holds clips.

    What the batch of :func:`endofm_monai.data.collate_clips` holds decides: views that were made in the workers are
    moved; raw clips are moved as uint8 and augmented on the device, each with its ``seed``, which gives the same views.
    """

    augment: RandAugmentViewsd  # a clip into views; its plan also says the shapes for a batch without clips

    def __call__(
        self, batchdata: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[list[torch.Tensor], None]:
        """Give V tensors ``(B, 3, T, S, S)`` (B is 0 when no clip could be read), and None in place of labels."""
        images = batchdata[CommonKeys.IMAGE]
        if images and images[0].ndim == 4:
            clips = [clip.to(device=device, non_blocking=non_blocking) for clip in images]
            images = augment_batch(self.augment.transform, clips, batchdata["seed"])
        elif not images:
            images = [torch.empty(0, 3, view.frames, view.size, view.size) for view in self.augment.transform.views]
        return [view.to(device=device, non_blocking=non_blocking, **kwargs) for view in images], None
