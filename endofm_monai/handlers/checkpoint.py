# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import errno
import logging
import math
import random
import shutil
import signal
import textwrap
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler
from torch import nn

from endofm_monai.handlers.log import BACKBONE, LOG, UnhealthyTrainingError
from endofm_monai.networks import unwrap
from endofm_monai.utils import atomic_path, check_writable, hold_folder
from endofm_monai.weights.load import load_trained_state, trained_state

__all__ = ["BestModelHandler", "EpochValidationHandler", "TrainingCheckpointHandler"]

logger = logging.getLogger(__name__)
STOP_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
_NOTES: dict[str, Any] = {"best": (dict, type(None)), "iteration": int, "epoch_length": int, "random_states": list}


@dataclass(eq=False)
class TrainingCheckpointHandler:
    """Saves and resumes the whole state of a :class:`endofm_monai.engines.ClipTrainer`, atomically.

    ``<ckpt_dir>/checkpoint.pt`` holds the trainer's ``checkpoint_parts``, the iteration, the best metric so far, and
    the random states of all ranks, and loads with ``weights_only=True``. Without an ``evaluator``, ``model.pt`` beside
    it holds the trainer's ``network_to_share``; with one, a :class:`BestModelHandler` writes it. They are written every
    ``interval`` epochs, at the end, and when the process gets SIGTERM or SIGUSR1: the run then stops after the present
    optimizer step. A training that stops because it is not healthy is saved as ``checkpoint_unhealthy.pt``. A frozen
    backbone with adapters is in none of the files: its SHA-256 stands for it (see
    :func:`~endofm_monai.weights.load.trained_state`).

    ``resume=False`` starts anew, and refuses to where ``ckpt_dir`` already holds a checkpoint; True goes on from that
    checkpoint, or starts where there is none; a path goes on from that file, and takes over the ``model.pt`` beside it.
    Other class names, clips of the validation or another score to choose by than those of the checkpoint are refused.
    A resumed run, also from the middle of an epoch, gives bit for bit (on the CPU) what the uninterrupted run would
    have given. If saving fails (a full disk), the former files stay, after a warning; at the end of the training it is
    an error. While it runs no other training can write to ``ckpt_dir``.
    """

    ckpt_dir: str
    resume: bool | str = False
    interval: int = 1  # epochs between two checkpoints
    evaluator: Evaluator | None = None  # the validation's, whose best metric the checkpoint keeps
    ends_process: bool = False  # after a stop by a signal, with `STOP_CODE`, so that a scheduler starts it again

    def __post_init__(self) -> None:
        self.path = Path(self.ckpt_dir) / "checkpoint.pt"
        self._started = self._stopped = False
        self._stop_requested: signal.Signals | None = None
        self._held = ExitStack()  # gives the signals and the folder back

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer, after all others except the validation, before which it saves."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_requested, False)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._save)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_requested, True)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._held.close)
        engine.add_event_handler(Events.TERMINATE, self._end_process)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._save_unhealthy)

    def _start(self, engine: Engine) -> None:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGUSR1):  # what schedulers send before they end a job
                self._held.callback(signal.signal, signum, signal.signal(signum, self._request_stop))
        if idist.get_rank() == 0:
            check_writable(self.path.parent)
            self._held.callback(hold_folder(self.path.parent, "training"))
        if self._started:  # a federated client runs its trainer again and again
            return
        self._started = True
        path = self.path if isinstance(self.resume, bool) else Path(self.resume)
        if self.resume and (path.exists() or path != self.path):
            self._load(engine, path)
        elif self.path.exists():
            raise FileExistsError(
                f"{self.path} holds a former training. Go on with it by `resume=True`, or choose another `ckpt_dir`."
            )

    def _request_stop(self, signum: int, frame: object) -> None:
        self._stop_requested = signal.Signals(signum)

    def _stop_if_requested(self, engine: Engine, is_epoch_over: bool) -> None:
        """After the last iteration of an optimizer step, save and stop if a rank got a signal."""
        state = engine.state
        ends_epoch = state.iteration % state.epoch_length == 0  # which other handlers complete first
        if ends_epoch != is_epoch_over or not engine.ends_step():
            return
        is_last = state.iteration >= state.max_epochs * state.epoch_length
        if idist.all_reduce(float(self._stop_requested or 0), op="MAX") and not is_last:
            name = self._stop_requested.name if self._stop_requested else "a signal to another process"
            self._save(engine)
            logger.warning(f"Stopped by {name}; go on with `resume=True` (saved in {self.path.parent}).")
            self._stopped = True
            engine.terminate(skip_completed=True)

    def _end_process(self) -> None:
        if self._stopped and self.ends_process:
            raise SystemExit(STOP_CODE)

    def _finish(self, engine: Engine) -> None:
        """Write both files; here a failure is an error, also an earlier one that left the best model unwritten."""
        self._write_both(engine)
        if self.evaluator is not None and (error := getattr(self.evaluator.state, "unwritten", None)):
            raise error

    def _write_both(self, engine: Engine) -> None:
        _write(self.path, self._state(engine))
        if self.evaluator is None:
            _write(self.path.with_name("model.pt"), trained_state(engine.network_to_share()))

    def _save(self, engine: Engine) -> None:
        try:
            self._write_both(engine)
        except OSError as error:
            logger.warning(f"{error}. The former checkpoint is kept; training goes on.")

    def _save_unhealthy(self, engine: Engine, error: BaseException) -> None:
        self._held.close()
        if isinstance(error, UnhealthyTrainingError):
            _write(self.path.with_name("checkpoint_unhealthy.pt"), self._state(engine))
        raise error

    def _state(self, engine: Engine) -> dict[str, Any]:
        """Everything that a resumed run needs, in types that load with ``weights_only=True``."""
        return {
            **{name: trained_state(part) for name, part in engine.checkpoint_parts().items()},
            "best": self._best(),
            "iteration": engine.state.iteration,
            "epoch_length": engine.state.epoch_length,
            "random_states": idist.all_gather(_random_state()),
        }

    def _best(self) -> dict[str, Any] | None:
        """What the validations have chosen so far; see :meth:`_set_best`."""
        if self.evaluator is None:
            return None
        state = self.evaluator.state
        return {
            "metric": state.best_metric,
            "epoch": state.best_metric_epoch,
            "judged_by": getattr(state, "judged_by", {}),
            "validated": 0 if getattr(state, "unwritten", None) else state.epoch,
        }

    def _load(self, engine: Engine, path: Path) -> None:
        """Take over the state saved in ``path``, or raise an error that names the file and the part that is wrong."""
        state, parts = _read(path), engine.checkpoint_parts()
        for name in {BACKBONE, LOG} - set(state):  # as in those of former versions
            parts.pop(name, None)
        if missing := ", ".join(name for name in (*parts, *_NOTES) if name not in state):
            problem = f"not a training checkpoint, {missing} missing"
            if state.keys() >= _NOTES.keys():
                problem = f"of a training without {missing}; resume with the settings that it was made with"
            raise ValueError(f"{path}: {problem}.")
        for name, kind in _NOTES.items():
            if not isinstance(state[name], kind):
                raise ValueError(f"{path}: not a training checkpoint, `{name}` is a {type(state[name]).__name__}.")
        epoch_length = engine.state.epoch_length
        if state["epoch_length"] != epoch_length:
            raise ValueError(
                f"{path}: made with {state['epoch_length']} iterations an epoch, but this training has {epoch_length}; "
                "resume with the same clips, batch size and number of processes."
            )
        take_overs: dict[str, Callable[[Any], object]] = {
            **{name: partial(load_trained_state, part) for name, part in parts.items()},
            "best": partial(self._set_best, path.with_name("model.pt")),
            "random_states": self._set_random_states,
        }
        for name, take_over in take_overs.items():
            try:
                take_over(state[name])
            except Exception as error:  # each part has its own way to say that something is not its own
                problem = f"{type(error).__name__}: {error}"
                reason = textwrap.shorten(problem, 400, placeholder=" ...")  # PyTorch's lists all that does not fit
                raise ValueError(f"{path}: `{name}` does not fit this training: {reason}") from error
        engine.state.iteration = state["iteration"]
        engine.state.epoch, done = divmod(state["iteration"], epoch_length)
        engine.data_loader.sampler.skip(done * engine.data_loader.batch_size)
        logger.info(f"Resumed from {path} after iteration {state['iteration']}.")

    def _set_best(self, model: Path, best: dict[str, Any] | None) -> None:
        if self.evaluator is None or best is None:
            return
        for key, now in getattr(self.evaluator.state, "judged_by", {}).items():
            if (was := best.get("judged_by", {}).get(key, now)) != now:
                raise ValueError(f"`{key}` was {was!r}, and is {now!r} now; resume with the former one.")
        if best["epoch"] < 1:
            return
        if not model.is_file():
            logger.warning(f"{model}: is not there; the best epoch so far, {best['epoch']}, is forgotten.")
            return
        if model.parent.resolve() != self.path.parent.resolve() and idist.get_rank() == 0:
            with atomic_path(self.path.with_name("model.pt")) as temporary:
                shutil.copyfile(model, temporary)
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = best["metric"], best["epoch"]
        self.evaluator.state.epoch = best.get("validated", 0)  # whose validation is not to be made up for

    def _set_random_states(self, states: list[dict[str, Any]]) -> None:
        if len(states) == idist.get_world_size():
            _set_random_state(states[idist.get_rank()])
        else:
            logger.warning("The checkpoint is of another number of processes: its random states are not taken over.")


@dataclass(eq=False)
class BestModelHandler:
    """Writes ``<ckpt_dir>/model.pt``, the network alone, whenever an evaluator's key metric is the best so far.

    If saving fails (a full disk), the former file stays as it is and the best, after a warning: the next epoch that is
    better takes its place. ``state.unwritten`` is the error until then.
    """

    network: nn.Module
    ckpt_dir: str

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._note_best)
        engine.add_event_handler(Events.COMPLETED, self._save_best)

    def _note_best(self, engine: Engine) -> None:
        self._best = engine.state.best_metric, engine.state.best_metric_epoch

    def _save_best(self, engine: Engine) -> None:
        state, name = engine.state, engine.state.key_metric_name
        if state.best_metric_epoch != state.epoch:
            return
        if math.isnan(state.best_metric):
            readable = f"what of the validation could be read in epoch {state.epoch}"
            raise ValueError(f"{name!r}, which chooses the weights, is undefined for {readable}.")
        if idist.get_rank() == 0:
            logger.info(f"epoch {state.epoch}: {name} {state.best_metric:.4f} is the best so far")
        try:
            _write(Path(self.ckpt_dir, "model.pt"), trained_state(unwrap(self.network)))
            state.unwritten = None
        except OSError as error:
            state.unwritten = error
            state.best_metric, state.best_metric_epoch = self._best
            logger.warning(f"{error}. The former model is kept; training goes on.")


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, or an error that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no checkpoint to resume from.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the parser raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason}).") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a training checkpoint, but a {type(state).__name__}.")
    return state


def _write(path: Path, state: Any) -> None:
    """Save ``state`` atomically, on the first process only."""
    if idist.get_rank() == 0:
        with atomic_path(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # how torch reports that the disk is full
                raise OSError(errno.EIO, str(error).splitlines()[0]) from error


def _random_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - MONAI and augmentations of users draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002


class EpochValidationHandler(ValidationHandler):
    """MONAI's handler, which also validates the last epoch, whatever the interval.

    It comes after a :class:`TrainingCheckpointHandler`, so that an epoch whose validation fails or is interrupted is
    saved; a resumed training makes up for the validation first.
    """

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._make_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate)

    def _make_up(self, engine: Engine) -> None:
        state = engine.state
        if self.validator.state.epoch < state.epoch and state.iteration == state.epoch * state.epoch_length:
            self._validate(engine)

    def _validate(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if (epoch % self.interval == 0 or epoch == engine.state.max_epochs) and not engine.should_terminate:
            # each process has statistics of its own clips since the last step, but one network is scored and kept
            parts = [part for part in engine.checkpoint_parts().values() if isinstance(part, nn.Module)]
            for buffer in [buffer for part in parts for buffer in part.buffers()]:
                idist.broadcast(buffer)
            self(engine)
