# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys, ensure_tuple
from PIL import Image

from endofm_monai.data import clip_names
from endofm_monai.metrics import SegmentationScores, reference_clip_scores
from endofm_monai.utils import atomic_path

__all__ = ["SegmentationEvaluation"]

logger = logging.getLogger(__name__)


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
