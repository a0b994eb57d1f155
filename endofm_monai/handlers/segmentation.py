# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice
from monai.utils import CommonKeys, ensure_tuple
from PIL import Image

from endofm_monai.data import ClipInfo, clip_names
from endofm_monai.formats.writers import MASK_WRITERS, VideoOutput, WriteFrame
from endofm_monai.metrics import SegmentationScores
from endofm_monai.reference.metrics import reference_clip_scores
from endofm_monai.utils import atomic_path

__all__ = ["MaskSaver", "MeanFrameDice", "SegmentationEvaluation"]

logger = logging.getLogger(__name__)


class MeanFrameDice:
    """Key metric of a MONAI evaluator: mean Dice of the frames of all clips, in however many processes.

    A frame in which neither truth nor prediction has a polyp counts as 1. A clip that several processes have seen
    counts once, which MONAI's ``DiceMetric`` could not tell.

    The evaluator must decollate and give ``pred`` and ``label``, masks ``(1, T, H, W)``; the batches' items have the
    ``index`` of :class:`endofm_monai.data.ClipDataset`.
    """

    def __init__(self) -> None:
        self._dice: dict[int, torch.Tensor] = {}  # of the frames of each clip

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._dice.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compute, name)

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            frames = (output[key].transpose(0, 1) for key in (CommonKeys.PRED, CommonKeys.LABEL))
            self._dice[int(item["index"])] = compute_dice(*frames, ignore_empty=False).double().flatten().cpu()

    def _compute(self, engine: Engine, name: str) -> None:
        """Set the metric; all processes must call it."""
        tables = idist.all_gather(self._dice) if idist.get_world_size() > 1 else [self._dice]
        clips = {index: dice for table in tables for index, dice in table.items()}
        if not clips:
            raise ValueError("There is nothing to evaluate: no clip could be read.")
        engine.state.metrics[name] = torch.cat([clips[index] for index in sorted(clips)]).mean().item()


class SegmentationEvaluation:
    """Evaluates masks by two protocols side by side, when an evaluator is done; the first process writes the results.

    ``<output_dir>/segmentation.json`` holds

    * ``clean``: the scores of :class:`endofm_monai.metrics.SegmentationScores`, at the size of the frames, of the
      clips that share no file with the training; clips of one ``video`` are one sequence;
    * ``post_processed``: the same of the masks at ``processed``, if the items have them;
    * ``published``: the published protocol, see :func:`endofm_monai.metrics.reference_clip_scores`, at the size of the
      network's output, of all clips; its own split shares clips between training and test, which are flagged;
    * ``skipped``: the names of clips that could not be read.

    ``<output_dir>/segmentation_frames.csv`` has the scores of each frame.

    The evaluator must give ``pred`` and ``label`` (masks ``(1, T, H, W)``), ``probability`` and ``logits`` of
    :class:`endofm_monai.transforms.MaskFromLogitsd`, and the ``index`` of :class:`endofm_monai.data.ClipDataset`.

    Args:
        output_dir: the folder to write to.
        training_data: the items that the network was trained on, to find shared clips.
        dataset_dir: folder that clips are named from.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        training_data: Sequence[dict[str, Any]] = (),
        dataset_dir: str | os.PathLike = ".",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.training_files = {file for item in training_data for file in ensure_tuple(item[CommonKeys.IMAGE])}
        self.dataset_dir = dataset_dir

    def attach(self, engine: Engine) -> None:
        """Register the handler with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget former results, and name the clips."""
        data = engine.data_loader.dataset.data
        self.names = clip_names([item[CommonKeys.IMAGE] for item in data], self.dataset_dir)
        self.clips: dict[int, dict[str, Any]] = {}  # by index, so that one seen by several processes counts once

    def score(self, engine: Engine) -> None:
        """Score the clips of one batch."""
        for inputs, outputs in zip(engine.state.batch, engine.state.output, strict=True):
            item = {**inputs, **outputs}
            index = int(item["index"])
            source = engine.data_loader.dataset.data[index]
            name = self.names[index]
            video = str(source.get("video", name))
            shared = not self.training_files.isdisjoint(ensure_tuple(source[CommonKeys.IMAGE]))
            truth = item[CommonKeys.LABEL][0]
            clean, processed = SegmentationScores(), SegmentationScores()
            if not shared:
                clean.add(name, item[CommonKeys.PRED][0], item["probability"][0], truth, video)
                if "processed" in item:
                    processed.add(name, item["processed"][0], item["probability"][0], truth, video)
            predicted = item["logits"].argmax(dim=0).cpu().numpy() > 0
            frames = [Image.fromarray(mask) for mask in truth.cpu().numpy()]
            width_height = predicted.shape[:0:-1]
            resized = [np.asarray(frame.resize(width_height, Image.Resampling.NEAREST)) > 0 for frame in frames]
            scores = reference_clip_scores(predicted, np.stack(resized))
            published = {"clip": name, **scores, "in_training": shared}
            self.clips[index] = {"clean": clean.rows, "processed": processed.rows, "published": published}

    def write(self, engine: Engine) -> None:
        """Write the results; all processes must call it."""
        tables = idist.all_gather(self.clips) if idist.get_world_size() > 1 else [self.clips]
        merged = {index: clip for table in tables for index, clip in table.items()}
        if idist.get_rank() > 0 or not merged:
            return
        clips = [merged[index] for index in sorted(merged)]
        clean, processed = (
            SegmentationScores([row for clip in clips for row in clip[key]]) for key in ("clean", "processed")
        )
        published = [clip["published"] for clip in clips]
        report: dict[str, Any] = {"clean": clean.report() if clean.rows else None}
        if processed.rows:
            report["post_processed"] = processed.report()
        report["published"] = {
            **{name: float(np.mean([clip[name] for clip in published])) for name in ("dice", "hd95")},
            "clips_in_training": [clip["clip"] for clip in published if clip["in_training"]],
            "clips": published,
        }
        report["skipped"] = [name for index, name in enumerate(self.names) if index not in merged]
        with atomic_path(self.output_dir / "segmentation.json") as temporary:
            temporary.write_text(json.dumps(report, indent=4))
        if not clean.rows:
            logger.warning("All evaluated clips were in training too: there is no clean result.")
            return
        rows = [{key: value for key, value in row.items() if key != "alignment"} for row in clean.rows]
        with (
            atomic_path(self.output_dir / "segmentation_frames.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        dice = report["clean"]["per_frame"]["dice"]
        logger.info(
            f"Dice of {report['clean']['frames']} frames of {report['clean']['sequences']} sequences: "
            f"{dice['value']:.3f} [{dice['interval'][0]:.3f}, {dice['interval'][1]:.3f}]; by the published protocol "
            f"{report['published']['dice']:.3f}. See {self.output_dir / 'segmentation.json'}."
        )


class MaskSaver:
    """Writes the masks of clips, which an evaluator goes through in chunks, frame by frame as they come.

    Each clip gets a folder ``<output_dir>/<name of the clip>`` with the ``formats``: ``"png"`` (``masks/*.png``),
    ``"nifti"`` (``masks.nii.gz``), ``"coco"`` (``masks.json``), ``"overlay"`` (``overlay.mp4``); see
    :mod:`endofm_monai.formats.masks`. A clip of which a chunk could not be read gets only the PNG files of the
    frames before it, and an error is logged.

    The evaluator must give ``pred`` (masks ``(1, T, H, W)``), ``frames`` (uint8 RGB ``(3, T, H, W)`` of the
    same size) and the ``index`` of :class:`endofm_monai.data.ClipDataset`, whose data must be those of
    :func:`endofm_monai.data.chunk_clips`, in order.

    Args:
        output_dir: the folder to write to.
        formats: what to write.
        dataset_dir: folder that clips are named from.

    Raises:
        ValueError: when a format is unknown.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        formats: Sequence[str] = ("png", "nifti", "coco", "overlay"),
        dataset_dir: str | os.PathLike = ".",
    ) -> None:
        if unknown := set(formats) - set(MASK_WRITERS):
            raise ValueError(f"`formats` must be some of {', '.join(MASK_WRITERS)}, but got {', '.join(unknown)}.")
        self.output_dir = Path(output_dir)
        self.formats = formats
        self.dataset_dir = dataset_dir
        self._stack = ExitStack()
        self._writers: list[WriteFrame] = []
        self._source: Any = None
        self._written = 0

    def attach(self, engine: Engine) -> None:
        """Register the handler with a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.stop)

    def start(self, engine: Engine) -> None:
        """Name the clips."""
        data = engine.data_loader.dataset.data
        first_chunks = [item["core"][0] == 0 for item in data]
        names = clip_names([item["source"] for item in compress(data, first_chunks)], self.dataset_dir)
        self._names = [names[number - 1] for number in accumulate(first_chunks)]

    def save(self, engine: Engine) -> None:
        """Write the cores of the chunks of one batch."""
        for chunk, output in zip(engine.state.batch, engine.state.output, strict=True):
            item = engine.data_loader.dataset.data[int(chunk["index"])]
            first, last, start, stop = item["core"]
            frames = chunk["frames"][:, start:stop].permute(1, 2, 3, 0).cpu().numpy()
            masks = (output[CommonKeys.PRED][0, start:stop] > 0).byte().cpu()
            if first == 0:
                self.finish()
                self._open(self._names[int(chunk["index"])], item, *masks.shape[1:])
            if item["source"] != self._source or first != self._written:
                continue  # a chunk before this one is missing; `finish` says so
            for frame, mask in zip(frames, masks, strict=True):
                for write in self._writers:
                    write(frame, {"mask": mask[None]})
            self._written = last
            if last == item["num_frames"]:
                self._close()

    def _open(self, name: str, item: dict[str, Any], height: int, width: int) -> None:
        source, frames = item["source"], item["num_frames"]
        names = [Path(path).stem for path in ensure_tuple(source)]
        if len(set(names)) != frames:  # no image files with a name each
            digits = max(5, len(str(frames - 1)))
            names = [f"{index:0{digits}d}" for index in range(frames)]
        info = ClipInfo(frames, item["fps"], height, width, frames / item["fps"])
        clip = VideoOutput(self.output_dir / name, name, names, info)
        self._source, self._name, self._written = source, name, 0
        self._writers = [self._stack.enter_context(MASK_WRITERS[format](clip)) for format in self.formats]

    def _close(self) -> None:
        self._stack.close()
        logger.info(f"Wrote the masks of {self._written} frames of {self._name}.")
        self._source = None

    def finish(self) -> None:
        """Give up the clip that is under way, if there is one."""
        if self._source is not None:
            logger.error(
                f"{self._name}: only the first {self._written} frames could be read; there are masks of no more."
            )
            self._give_up(RuntimeError(self._name))

    def stop(self, engine: Engine, error: BaseException) -> None:
        """Leave nothing half written, and raise the error again."""
        if self._source is not None:
            self._give_up(error)
        raise error

    def _give_up(self, error: BaseException) -> None:
        """Leave the writers with an error, so that they write no file that is not complete."""
        self._source = None
        try:
            self._stack.__exit__(type(error), error, None)
        except BaseException as raised:
            if raised is not error:
                raise
