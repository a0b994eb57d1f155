# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import StatsHandler
from torch import nn
from torch.optim.swa_utils import AveragedModel

from endofm_monai.data import ClipReadError
from endofm_monai.handlers.checkpoint import BestModelHandler, EpochValidationHandler, TrainingCheckpointHandler
from endofm_monai.handlers.log import BACKBONE, Board, ProgressHandler, TrainingLogHandler
from endofm_monai.losses import ConceptLoss
from endofm_monai.networks import unwrap
from endofm_monai.optimizers import CosineSchedule
from endofm_monai.utils import PathLike
from endofm_monai.weights import load_published
from endofm_monai.weights.files import BACKBONE_HASH
from endofm_monai.weights.load import backbone_sha256, check_backbone

__all__ = [
    "BrokenClipsHandler", "ConceptPhaseHandler", "GradientHandler", "LoadWeightsHandler", "ScheduleHandler",
    "TeacherUpdateHandler", "TrainingHandlers", "ValidationHandlers", "WeightAverageHandler", "WeightsCheckpointLoader",
]  # fmt: skip

logger = logging.getLogger(__name__)


class HandlerGroup:
    """Several handlers as one, attached in their order; False and None are none."""

    handlers: Sequence[Any]

    def attach(self, engine: Engine) -> None:
        for handler in filter(None, self.handlers):
            handler.attach(engine)


class TrainingHandlers(HandlerGroup):
    """What goes with the learning in every bundle's training, as one handler; it comes after all others.

    In this order: weights are loaded, broken clips left out, the learning rate set, gradients clipped, the log written,
    weights averaged, the progress shown, checkpoints kept and, last, validations run. What an argument means is said
    where the handler of that name is; the log is a :class:`TrainingLogHandler` unless another one is given.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: CosineSchedule,
        epochs: int,
        ckpt_dir: str,
        output_dir: str,
        *,
        weights: str | None = None,
        on_error: str = "skip",
        max_broken_share: float = 0.05,
        max_gradient_norm: float | None = None,
        freeze_last_layer_epochs: int = 0,
        log: TrainingLogHandler | None = None,
        validator: Evaluator | None = None,
        val_interval: int = 1,
        average_decay: float | None = None,
        resume: bool | str = False,
        checkpoint_interval: int = 1,
    ) -> None:
        self.handlers = [
            weights is not None and LoadWeightsHandler(network, weights),
            BackboneNote(network),
            BrokenClipsHandler(on_error, max_broken_share),
            ScheduleHandler(optimizer, "lr", schedule, epochs),
            GradientHandler(max_gradient_norm, freeze_last_layer_epochs),
            log or TrainingLogHandler(output_dir),
            validator and average_decay is not None and WeightAverageHandler(network, validator, average_decay),
            ProgressHandler(),
            TrainingCheckpointHandler(ckpt_dir, resume, checkpoint_interval, validator, ends_process=True),
            validator and EpochValidationHandler(val_interval, validator),
        ]


class ValidationHandlers(HandlerGroup):
    """What goes with every validation of a training, as one handler: broken clips, the log, the best model."""

    def __init__(
        self, network: nn.Module, ckpt_dir: str, output_dir: str, on_error: str = "skip", max_broken_share: float = 0.05
    ) -> None:
        self.handlers = [
            Board(f"{output_dir}/validation"),
            BrokenClipsHandler(on_error, max_broken_share),
            idist.get_rank() == 0 and StatsHandler(iteration_log=False),
            BestModelHandler(network, ckpt_dir),
        ]


@dataclass(eq=False)
class LoadWeightsHandler:
    """Loads weights of any layout when an engine starts, with :func:`endofm_monai.weights.load_published`."""

    network: nn.Module
    weights: PathLike
    backbone: PathLike | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            raise ValueError("`weights` must be a file, found None.")

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._load)

    def _load(self) -> None:
        logger.info("%s", load_published(self.network, self.weights, backbone=self.backbone))


class WeightsCheckpointLoader(LoadWeightsHandler):
    """The handler of evaluations: MONAI's federated client, which sets the weights itself, disables it by its name."""


@dataclass(eq=False)
class BackboneNote:
    """Stands in checkpoints for the backbone where a trainer has only the head: another backbone is refused."""

    network: nn.Module  # both together

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer, after what loads weights and before what resumes."""
        engine.add_event_handler(Events.STARTED, self._note)

    def _note(self, engine: Engine) -> None:
        if unwrap(engine.network) is not unwrap(self.network):
            self._sha256 = backbone_sha256(self.network.state_dict())
            engine.further_checkpoint_parts[BACKBONE] = self

    def state_dict(self) -> dict[str, Any]:
        """The SHA-256 of the backbone, as in :func:`endofm_monai.weights.load.trained_state`."""
        return {BACKBONE_HASH: self._sha256}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with that of a checkpoint; raises a ``WeightsError``."""
        check_backbone(state[BACKBONE_HASH], self._sha256, "the checkpoint")


@dataclass(eq=False)
class BrokenClipsHandler:
    """Decides what happens when clips of a :class:`endofm_monai.data.ClipDataset` cannot be read.

    Batches list the messages under ``broken``. Each broken clip is reported once, left out of its batch, and counted
    as often as an epoch meets it; another clip never takes its place.
    """

    on_error: str = "raise"  # stops at the first broken clip; "skip" goes on without it
    max_share: float = 0.05  # with "skip", the run stops when more than this share of an epoch's clips is broken

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", but got {self.on_error!r}.')
        self.broken: dict[str, str] = {}  # a message for each file: they differ by the frames that were wanted
        self._met = self._most = 0  # in this epoch, and in that with the most; a file may be in many clips

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(self, "_met", 0))
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._inspect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._check(engine, idist.all_reduce(self._met)))
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._summarize)

    def _inspect(self, engine: Engine) -> None:
        for message in engine.state.batch.get("broken", []):
            if self.on_error == "raise":
                raise ClipReadError(f'{message} (use `on_error="skip"` to leave broken clips out)')
            if (clip := getattr(message, "clip", message)) not in self.broken:
                self.broken[clip] = message
                logger.warning(f"Skipping a broken clip: {message}")
            self._met += 1
        self._check(engine, self._met)

    def _check(self, engine: Engine, met: int) -> None:
        self._most, clips = max(self._most, met), self._clips(engine)
        if met > self.max_share * clips:
            first = "; ".join(sorted(self.broken.values())[:3]) + ("; ..." if len(self.broken) > 3 else "")
            problem = f"{met} of {clips} clips are broken"
            raise ClipReadError(f"{problem}, more than `max_broken_share`={self.max_share:.0%}: {first}")

    def _summarize(self, engine: Engine) -> None:
        if self.broken:
            logger.warning(f"{self._most} of {self._clips(engine)} clips were broken and skipped.")

    def _clips(self, engine: Engine) -> int:
        """Clips of an epoch, of all processes."""
        return len(engine.data_loader.sampler) * idist.get_world_size()


@dataclass(eq=False)
class ScheduleHandler:
    """Sets one number by a schedule before each optimizer step of a :class:`endofm_monai.engines.ClipTrainer`.

    The value depends on nothing but the step, so a resumed run goes on with the schedule where it stopped. An optimizer
    has it in its parameter groups: ``lr`` times the group's ``lr_scale``, ``weight_decay`` only where ``decay`` is set.
    """

    target: Any  # an optimizer, or any object, which gets the value as an attribute
    name: str  # of the number, for example "lr"
    schedule: CosineSchedule
    epochs: int = 0  # length of the schedule; at least `max_epochs` of the trainer

    def attach(self, engine: Engine) -> None:
        if self.name == "lr" and 0 < self.epochs <= getattr(self.schedule, "warmup_epochs", 0):
            logger.warning(f"`warmup_epochs` is not less than `epochs`={self.epochs}: the learning rate only rises.")
        engine.add_event_handler(Events.ITERATION_STARTED, self._set)

    def _set(self, engine: Engine) -> None:
        steps_per_epoch = math.ceil(engine.state.epoch_length / engine.accumulation_steps)
        epoch, iteration = divmod(engine.state.iteration - 1, engine.state.epoch_length)
        step = epoch * steps_per_epoch + iteration // engine.accumulation_steps
        value = self.schedule(step, steps_per_epoch, max(self.epochs, engine.state.max_epochs))
        if not isinstance(self.target, torch.optim.Optimizer):
            setattr(self.target, self.name, value)
            return
        for group in self.target.param_groups:
            if self.name == "lr":
                group["lr"] = value * group.get("lr_scale", 1.0)
            elif self.name != "weight_decay" or group.get("decay", True):
                group[self.name] = value


@dataclass(eq=False)
class GradientHandler:
    """Clips the gradients before the optimizer step; ``engine.state.gradient_norm`` is their norm before that."""

    max_norm: float | None = 3.0  # largest L2 norm of all gradients together; None leaves them
    freeze_last_layer_epochs: int = 0  # in which a pre-training's `last_layer`, its prototypes, gets no gradient

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._check_epochs)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _check_epochs(self, engine: Engine) -> None:
        frozen, epochs = self.freeze_last_layer_epochs, engine.state.max_epochs or math.inf
        if frozen >= epochs:
            settings = f"`freeze_last_layer_epochs` is {frozen}, `epochs` {epochs}"
            logger.warning(f"{settings}: in this training the prototypes stay as they were drawn.")

    def _clip(self, engine: Engine) -> None:
        network = unwrap(engine.network)
        if engine.state.epoch <= self.freeze_last_layer_epochs:
            network.last_layer.zero_grad()
        parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
        engine.state.gradient_norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, engine.state.gradient_norm)


class TeacherUpdateHandler:
    """Moves the teacher towards the student after each optimizer step (paper, section 2.2).

    The momentum is the network's ``teacher_momentum``, usually driven by a :class:`ScheduleHandler`.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: unwrap(engine.network).update_teacher())


@dataclass(eq=False)
class ConceptPhaseHandler:
    """What begins later in a training of a :class:`endofm_monai.networks.nets.ConceptNetwork`.

    From the second epoch on scores are balanced with the queue, which the first one filled. Until the local concepts
    are learned, what gathers them gets no gradient, of which Adam would make large steps.
    """

    loss: ConceptLoss  # of the training
    epochs_without_local_loss: int = 10  # the first ones

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer, ahead of a :class:`GradientHandler`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._discard_gradients)

    def _start_epoch(self, engine: Engine) -> None:
        self.loss.uses_queue = engine.state.epoch > 1
        self.loss.local_weight = float(engine.state.epoch > self.epochs_without_local_loss)

    def _discard_gradients(self, engine: Engine) -> None:
        if self.loss.local_weight == 0:
            unwrap(engine.network).integration.zero_grad()


@dataclass(eq=False)
class WeightAverageHandler:
    """Validates, and so keeps as ``model.pt``, a moving average of the weights instead of the last ones.

    The average begins as the weights after the first optimizer step; after step n it moves towards those of the
    training by ``1 - min(decay, n / (9 + n))``, so that the first steps are soon forgotten. Buffers are those of the
    last step. It is part of the checkpoint. An evaluation outside of the training, as by a federated client, is of the
    weights that the network has.
    """

    network: nn.Module  # perhaps in `DistributedDataParallel`
    validator: Evaluator  # its evaluator during the training
    decay: float  # share of the former average that stays, from 0 (none) to below 1

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"`average_decay` must be from 0 to below 1, but got {self.decay}.")
        self.network = unwrap(self.network)
        self._training = False
        self._weights_of_training: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer; the validator already has its own handlers."""
        self.average = AveragedModel(self.network, multi_avg_fn=self._move)
        engine.further_checkpoint_parts["average"] = self.average
        engine.add_event_handler(Events.STARTED, self._note_training, True)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._note_training, False)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: self.average.update_parameters(self.network))
        self.validator.add_event_handler(Events.STARTED, self._use_average)
        self.validator.add_event_handler(Events.COMPLETED, self._use_weights_of_training)

    def _move(self, average: Any, weights: Any, steps: torch.Tensor | int) -> None:
        """Move the average on by one step; torch takes over the first step's weights itself."""
        count = int(steps) + 1
        torch._foreach_lerp_(average, weights, 1 - min(self.decay, count / (9 + count)))

    def _note_training(self, engine: Engine, training: bool) -> None:
        self._training = training

    def _use_average(self) -> None:
        if self._training:
            self._weights_of_training = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.network.load_state_dict(self.average.module.state_dict())

    def _use_weights_of_training(self) -> None:
        if self._weights_of_training:
            self.network.load_state_dict(self._weights_of_training)
        self._weights_of_training = {}
