# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import SupervisedTrainer, Trainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn

from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks import DividedSpaceTimeBlock

__all__ = ["ClipTrainer"]


class ClipTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` for batches of :func:`endofm_monai.data.collate_clips`, on every device.

    With ``accumulation_steps`` above 1 only the last iteration of a group makes an optimizer step;
    ``IterationEvents.BACKWARD_COMPLETED`` (gradients complete and unscaled) and ``MODEL_COMPLETED`` (network updated)
    fire once a step. A batch in which a rank has no readable clip teaches nothing, on any rank: its output has no
    ``loss``. Schedules, gradient clipping, checkpoints and logs are handlers.

    Args:
        device: where to run.
        max_epochs: number of epochs.
        train_data_loader: loader of batches for ``prepare_batch``.
        network: the network, perhaps in ``DistributedDataParallel``.
        optimizer: optimizer of its parameters.
        loss_function: from what the network gives and the targets to the mean loss of the batch.
        amp: compute the network in lower precision.
        amp_kwargs: arguments of ``torch.autocast``; ``dtype`` is ``torch.bfloat16`` unless said otherwise, and with
            ``torch.float16`` gradients are scaled.
        compile: compile each transformer block with ``torch.compile``.
        compile_kwargs: arguments of ``torch.compile``.
        decollate: split batches into items for ``postprocessing`` and metrics of the training.
        kwargs: further arguments of ``monai.engines.SupervisedTrainer``: ``prepare_batch``, ``inferer``,
            ``train_handlers``, ``accumulation_steps``, ...

    Raises:
        ValueError: when an epoch would have no batch.
    """

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
        decollate: bool = False,
        **kwargs: Any,
    ) -> None:
        epoch_length = kwargs.get("epoch_length")
        if epoch_length == 0 or (epoch_length is None and len(train_data_loader) == 0):
            raise ValueError("An epoch has no batch: there are fewer clips than `batch_size`; lower it or add clips.")
        self.further_checkpoint_parts: dict[str, Any] = {}
        super().__init__(
            torch.device(device),
            max_epochs,
            train_data_loader,
            network,
            optimizer,
            loss_function,
            amp=amp,
            amp_kwargs={"dtype": torch.bfloat16, **(amp_kwargs or {})},
            decollate=decollate,
            **kwargs,
        )
        scaled = amp and self.amp_kwargs["dtype"] == torch.float16
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=scaled)
        if compile:
            for block in unwrap(network).modules():
                if isinstance(block, DividedSpaceTimeBlock):
                    block.compile(**(compile_kwargs or {}))
        self._clips_in_step = 0

    def run(self) -> None:
        """Train from the present state on; the gradient scaler lives as long as the trainer."""
        super(Trainer, self).run()

    def checkpoint_parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by name, each with ``state_dict`` and ``load_state_dict``.

        Handlers add theirs to ``further_checkpoint_parts``.
        """
        parts = {"network": unwrap(self.network), "optimizer": self.optimizer, "scaler": self.scaler}
        parts.update(self.further_checkpoint_parts)
        if isinstance(self.loss_function, nn.Module) and self.loss_function.state_dict():
            parts["loss"] = self.loss_function
        return parts

    def network_to_share(self) -> nn.Module:
        """The network whose weights others start from."""
        return unwrap(self.network)

    def accumulation_group(self) -> tuple[int, int]:
        """The iteration before the present accumulation group, and its size; the last of an epoch is smaller."""
        epoch_length = self.state.epoch_length
        epoch_start = (self.state.iteration - 1) // epoch_length * epoch_length
        within = (self.state.iteration - 1 - epoch_start) // self.accumulation_steps * self.accumulation_steps
        return epoch_start + within, min(self.accumulation_steps, epoch_length - within)

    def _iteration(self, engine: ClipTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Learn from one batch; see the class."""
        last = engine._start_iteration()
        clips = len(batchdata[CommonKeys.IMAGE])
        total, fewest = clips, clips
        if idist.get_world_size() > 1:
            total, fewest = idist.all_reduce(clips), idist.all_reduce(clips, op="MIN")
        engine.state.output = {}
        if fewest > 0:
            engine._clips_in_step += total
            inputs, targets, *more = engine.prepare_batch(
                batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
            )
            args, kwargs = more or ((), {})
            engine.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
            with engine._autocast():
                engine.state.output[CommonKeys.PRED] = engine.inferer(inputs, engine.network, *args, **kwargs)
                engine.fire_event(IterationEvents.FORWARD_COMPLETED)
                loss = engine.loss_function(engine.state.output[CommonKeys.PRED], targets).mean()
            engine.state.output[CommonKeys.LOSS] = loss.detach()
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
            share = clips * idist.get_world_size() / total  # processes are averaged, clips shall be
            engine._backward(loss * share)
        if last and engine._clips_in_step > 0:
            engine._step()
        return engine.state.output

    def _start_iteration(self) -> bool:
        """Begin an accumulation group where one begins; returns whether it ends with this iteration."""
        group_start, group_size = self.accumulation_group()
        self.network.train()
        if self.state.iteration == group_start + 1:
            self.optimizer.zero_grad(set_to_none=True)
            self._clips_in_step = 0
        return self.state.iteration == group_start + group_size

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)

    def _backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss / self.accumulation_group()[1]).backward()

    def _step(self) -> None:
        """Update the network by the gradients of an accumulation group."""
        self.scaler.unscale_(self.optimizer)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
