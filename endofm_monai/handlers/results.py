# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events, State
from monai.config import PathLike
from monai.utils import CommonKeys, ensure_tuple

from endofm_monai.data import ClipReadError, clip_images, clip_state, first_frame, result_path, without_suffix
from endofm_monai.engines import VideoEvents
from endofm_monai.formats import VideoOutput, WriteFrame
from endofm_monai.utils import check_writable, read_json, write_json

logger = logging.getLogger(__name__)


class Rows(dict[Any, list[Any]]):
    """What a handler notes of an epoch: rows by the place of their item in the datalist.

    So :meth:`gather` puts those of all processes in order, and what several of them have seen counts once.
    """

    def attach(self, engine: Engine) -> None:
        """Forget all rows when an epoch starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.clear())

    def attach_broken(self, engine: Engine) -> None:
        """Note the messages about clips that could not be read."""

        def note(engine: Engine) -> None:
            self.update({message: [message] for message in engine.state.batch.get("broken", [])})

        self.attach(engine)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, note)

    def gather(self) -> "Rows":
        """The rows of all processes, which all must call it, in the order of the datalist."""
        return Rows(sorted(reduce(or_, idist.all_gather(dict(self))).items()))

    def flat(self) -> list[Any]:
        """All rows in one list."""
        return [row for rows in self.values() for row in rows]


def decollated(engine: Engine) -> list[tuple[Any, Any]]:
    """The items of an evaluator's batch with their outputs; longer metadata may have left it more items than clips."""
    state = engine.state
    return list(zip(state.batch[: len(state.output)], state.output, strict=True))


def describe_items(items: Sequence[dict[str, Any]]) -> str:
    """Number of items, and a digest of their names and of what is true of them: the same in a folder that was moved."""
    told = [[item.get(key) for key in ("name", CommonKeys.LABEL, "box", "box_label")] for item in items]
    return f"{len(items)} clips, SHA-256 {hashlib.sha256(str(told).encode()).hexdigest()[:12]}"


def _place(engine: Engine) -> int:
    return int(engine.state.item["index"])


@dataclass(eq=False)
class Report(ABC):
    """Key metric of a :class:`endofm_monai.engines.VideoEvaluator`, made of a row a piece.

    With ``output_dir`` the first process also writes a report, when an evaluation is the best of its run so far.
    Without one it chooses weights, and what leaves it undefined is refused.
    """

    output_dir: PathLike | None = None
    rows: Rows = field(default_factory=Rows, init=False)

    keeps_broken: ClassVar[bool] = False  # whether the rows of a video that breaks off count

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        items = engine.data_loader.dataset.data
        lack = self._lack(items)
        if lack and self.output_dir is None:
            raise ValueError(f"{name!r}, which chooses the weights, is undefined: {lack}.")
        engine.state.judged_by = {**self._judged_by(), "validation": describe_items(items)}
        self._collect(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score, name)
        if self.output_dir is not None and idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, check_writable, self.output_dir)
            engine.add_event_handler(Events.COMPLETED, self._finish, Path(self.output_dir))

    def _lack(self, items: Sequence[dict[str, Any]]) -> str:
        """What leaves the key metric of these items undefined, whatever is predicted; refuses what is no metric."""
        return ""

    def _judged_by(self) -> dict[str, Any]:
        """Settings, by name, that a resumed training must keep: scores under others do not compare."""
        return {"class_names": list(names)} if (names := getattr(self, "class_names", ())) else {}

    def _collect(self, engine: Engine) -> None:
        self.rows.attach(engine)
        engine.add_event_handler(VideoEvents.VIDEO_STARTED, self._begin)
        engine.add_event_handler(VideoEvents.PIECE_COMPLETED, lambda: self._present.append(self._row(engine.state)))
        if not self.keeps_broken:
            engine.add_event_handler(VideoEvents.VIDEO_BROKEN, lambda: self.rows.pop(_place(engine), None))

    def _begin(self, engine: Engine) -> None:
        self._present: list[Any] = []
        self.rows[_place(engine)] = self._present

    def _score(self, engine: Engine, name: str) -> None:
        self.gathered = self.rows.gather()
        if not self.gathered.flat():
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        engine.state.metrics.update(self._metrics(self.gathered.flat(), name))

    def _finish(self, engine: Engine, folder: Path) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch:
            names = [item.get("name") for item in engine.data_loader.dataset.data]
            self._write(engine, folder, [name for place, name in enumerate(names) if place not in self.gathered])

    @abstractmethod
    def _row(self, state: State) -> Any:
        """What is noted of a piece."""

    @abstractmethod
    def _metrics(self, rows: list[Any], name: str) -> dict[str, float]:
        """The key metric under its ``name``, perhaps among others."""

    @abstractmethod
    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        """Write the report of the ``gathered`` rows; ``skipped`` are the names of items without any."""


@dataclass(eq=False)
class ResultSaver(ABC):
    """Writes what a :class:`endofm_monai.engines.VideoEvaluator` finds in each video, piece by piece as it comes.

    Last of a video comes ``<results_dir>/<name>.json``, by the ``name`` of its item. Its ``status`` is ``"ok"``,
    ``"damaged"`` (only the first pieces could be read) or ``"unreadable"``, with the message under ``problems``. A run
    that is started again leaves out what is ok by the ``results_dir`` of :func:`endofm_monai.data.list_videos`. Results
    of other weights or ``settings`` are not mixed in a folder, whose ``settings.json`` tells them.
    """

    output_dir: PathLike  # and `results_dir`, unless a subclass has another one
    settings: Mapping[str, Any] | None = None  # all that results depend on; None overwrites whatever is there

    also: ClassVar[Sequence[str]] = ()  # options that are settings too

    def __post_init__(self) -> None:
        self.output_dir = self.results_dir = Path(self.output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after what loads its weights."""
        if self.settings is not None:
            engine.add_event_handler(Events.STARTED, self._claim, self.settings)
        engine.add_event_handler(VideoEvents.VIDEO_STARTED, self._begin)
        engine.add_event_handler(VideoEvents.PIECE_COMPLETED, self._add)
        for event in (VideoEvents.VIDEO_COMPLETED, VideoEvents.VIDEO_BROKEN):
            engine.add_event_handler(event, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)

    @abstractmethod
    def _begin(self, engine: Engine) -> None:
        """Begin a video."""

    @abstractmethod
    def _add(self, engine: Engine) -> None:
        """Take a piece."""

    @abstractmethod
    def _end(self, engine: Engine) -> dict[str, Any]:
        """Write the files of a video that is complete, or has a ``state.problem``; gives what its result shall tell."""

    @abstractmethod
    def _forget(self) -> None:
        """Forget a video after its end or an error, and leave nothing half written."""

    def _claim(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        digest = hashlib.sha256()
        for value in engine.network.state_dict().values():
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        own = {name: getattr(self, name) for name in self.also}
        now = json.loads(json.dumps({**own, **settings, "weights_sha256": digest.hexdigest()}))
        path = self.output_dir / "settings.json"
        former = read_json(path, dict) if path.exists() else now
        if differing := ", ".join(key for key in {**now, **former} if now.get(key) != former.get(key)):
            raise FileExistsError(
                f"{self.output_dir} holds results with other settings ({differing}); choose another `output_dir`."
            )
        write_json(path, now)

    def _finish(self, engine: Engine) -> None:
        state = engine.state
        name, problems = state.item["name"], [state.problem] if state.problem else []
        result = {"video": state.item.get("video", name), "state": clip_state(state.item[CommonKeys.IMAGE])}
        result |= {"status": "ok", "problems": problems}
        if problems:
            logger.error(f"{name}: only the first {state.piece} pieces could be read ({state.problem}).")
            result["status"] = "damaged" if state.piece else "unreadable"
        result |= {key: getattr(state.info, key, None) for key in ("frames", "fps")} | self._end(engine)
        self._forget()
        write_json(result_path(self.results_dir, name), result)

    def _stop(self, engine: Engine, error: BaseException) -> None:
        self._forget()
        raise error


@dataclass(eq=False)
class FrameSaver(ResultSaver):
    """Writes the answers for the frames of each video to ``<output_dir>/<name>``, but for one that breaks off."""

    class_names: Sequence[str] = ("polyp",)  # from 1 on
    formats: Sequence[str] | None = None  # of :mod:`endofm_monai.formats.writers`; by default all
    threshold: float = 0.5  # smallest score of a box in pictures and tracks

    also: ClassVar = ("class_names", "formats", "threshold")
    writers: ClassVar[Mapping[str, Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.formats = list(self.writers if self.formats is None else ensure_tuple(self.formats))
        if unknown := set(self.formats) - set(self.writers):
            raise ValueError(f"`formats` must be some of {', '.join(self.writers)}, but got {', '.join(unknown)}.")
        self._stack = ExitStack()
        self._writers: list[WriteFrame] = []

    def _begin(self, engine: Engine) -> None:
        info, name, image = engine.state.info, engine.state.item["name"], engine.state.item[CommonKeys.IMAGE]
        names = [without_suffix(path.name) for path in clip_images(image)]
        if len(set(names)) != info.frames:  # not every frame has an image file of a name of its own
            digits = max(5, len(str(info.frames - 1)))
            names = [f"{index:0{digits}d}" for index in range(info.frames)]
        start = first_frame(image)
        output = VideoOutput(self.output_dir / name, name, names, info, self.class_names, self.threshold, start)
        self._writers = [self._stack.enter_context(self.writers[format](output)) for format in self.formats or ()]

    def _add(self, engine: Engine) -> None:
        frame = engine.state.frame.permute(1, 2, 0).numpy()
        for write in self._writers:
            write(engine.state.piece, frame, engine.state.answer)

    def _end(self, engine: Engine) -> dict[str, Any]:
        if not engine.state.problem:
            self._stack.close()
            logger.info(f"Wrote the results of {engine.state.piece} frames of {engine.state.item['name']}.")
        return {}

    def _forget(self) -> None:
        with suppress(ClipReadError), self._stack:  # writers that are still open leave nothing after an error
            raise ClipReadError("broken off")
