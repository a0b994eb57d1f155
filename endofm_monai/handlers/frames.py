# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, State
from monai.data.box_utils import clip_boxes_to_image
from monai.utils import CommonKeys
from PIL import Image

from endofm_monai.data import ClipReadError, check_boxes, check_mask, clip_images, mask_files, read_mask
from endofm_monai.engines import VideoEvents
from endofm_monai.formats import BOX_WRITERS, MASK_WRITERS
from endofm_monai.handlers.results import FrameSaver, Report
from endofm_monai.metrics import DetectionFrame, average_precision, detection_report, frame_scores, segmentation_report
from endofm_monai.utils import write_csv, write_json

__all__ = ["DetectionReport", "DetectionSaver", "MaskSaver", "SegmentationReport"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class DetectionReport(Report):
    """Key metric: the average precision at IoU 0.5.

    With ``output_dir``, ``detection.json`` has all of :func:`endofm_monai.metrics.detection_report`, and as
    ``skipped`` the names of videos that could not be read. Of true boxes there is only what lies in the frame.
    """

    class_names: Sequence[str] = ("polyp",)
    threshold: float | None = None  # smallest score of a detection; None is the one with the best F1
    resamples: int = 1000  # of whole videos, for intervals

    def _row(self, state: State) -> DetectionFrame:
        item, info, place = state.item, state.info, state.piece
        if len(item["box"]) != info.frames:
            raise ClipReadError(f"{item['name']}: has {info.frames} frames, but boxes for {len(item['box'])} frames")
        if place == 0:
            check_boxes(item["box"], info.height, info.width, item["name"])
        box = np.asarray(item["box"][place], np.float32).reshape(-1, 4)
        box, kept = clip_boxes_to_image(box, (info.width, info.height))
        label = np.asarray(item["box_label"][place], np.int64)[kept]
        found, classes, score = (state.answer[key].numpy() for key in ("box", "label", "label_scores"))
        group = str(item.get("group", item["video"]))
        return DetectionFrame(item["name"], place, box, label, found, classes, score, group)

    def _lack(self, items: Sequence[dict[str, Any]]) -> str:
        has_box = any(boxes for item in items for boxes in item["box"])
        return "" if has_box else "no frame of the validation has a box"

    def _metrics(self, rows: list[DetectionFrame], name: str) -> dict[str, float]:
        return {name: average_precision(rows)["ap50"]}

    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        report = detection_report(self.gathered.flat(), self.class_names, self.threshold, self.resamples)
        if self.threshold is None and report["threshold"] == 1:  # as on videos without polyps
            advice = "set `threshold`, as to that of a validation"
            logger.warning(f"No detection is right, so the threshold is 1 and hardly one counts as false: {advice}.")
        for name, value in report["scores"].items():
            low, high = report.get("intervals", {}).get(name, (math.nan, math.nan))
            logger.info(f"{name} {value:.3f} (95 % interval {low:.3f} to {high:.3f})")
        write_json(folder / "detection.json", {**report, "skipped": skipped})


class DetectionSaver(FrameSaver):
    """Writes ``detections.json`` (COCO), ``detections.csv``, ``annotations.xml`` (CVAT) and ``overlay.mp4``."""

    writers = BOX_WRITERS


def true_mask(state: State) -> np.ndarray:
    """The true mask ``(H, W)``, bool, of the frame that an evaluator is at; its handlers share the first reading.

    It is of the item's ``mask``: a file for each frame, or their folder.
    """
    if getattr(state, "truth_of", None) is not state.frame:
        name, info = state.item["name"], state.info
        masks = mask_files(state.item["mask"], state.item[CommonKeys.IMAGE])
        if len(masks) != info.frames or masks[state.piece] is None:
            there = f"has {info.frames} frames, but masks for {len(masks)}"
            raise ClipReadError(f"{name}: {there}; frame {state.piece} needs one")
        path = masks[state.piece]
        state.truth, state.truth_of = read_mask(Path(path), clean=True), state.frame
        check_mask(state.truth, info.height, info.width, path)
    return state.truth


@dataclass(eq=False)
class SegmentationReport(Report):
    """Key metric: the mean Dice of all frames before any post-processing, 1 where neither mask has a polyp.

    With ``output_dir``, ``segmentation_frames.csv`` has the scores of each frame, and ``segmentation.json``

    * ``clean``: the scores of :func:`endofm_monai.metrics.segmentation_report`, at the size of the frames and before
      any post-processing, of videos that share no file with the training; those of one ``video`` are one sequence,
      and intervals draw those of one ``group`` together, if items have one;
    * ``post_processed``: the same after it;
    * ``published``: means of ``clip_scores`` of all videos; those shared with the training are flagged;
    * ``skipped``: the names of videos that could not be read.
    """

    training_data: Sequence[dict[str, Any]] = ()  # the items that the network was trained on
    post_processed: bool = False  # whether the predictor post-processes
    # of a video's prediction and truth, both bool (T, h, w) at the network's size; see :mod:`endofm_monai.reference`
    clip_scores: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None

    def __post_init__(self) -> None:
        self._training = {file for item in self.training_data for file in clip_images(item[CommonKeys.IMAGE])}

    def _collect(self, engine: Engine) -> None:
        super()._collect(engine)
        if self.clip_scores is not None:
            engine.add_event_handler(VideoEvents.VIDEO_COMPLETED, self._score_clip)

    def _begin(self, engine: Engine) -> None:
        super()._begin(engine)
        self._masks: list[np.ndarray] = []
        self._shared = self._is_shared(engine.state.item)

    def _row(self, state: State) -> dict[str, Any]:
        answer, truth = state.answer, true_mask(state)
        raw = answer["probability"] > 0.5
        both = np.count_nonzero(raw) + np.count_nonzero(truth)
        row: dict[str, Any] = {"dice": 2 * np.count_nonzero(raw[0].numpy() & truth) / both if both else 1.0}
        if self.clip_scores is not None:
            predicted = (answer["logits"].argmax(dim=0) > 0).numpy()
            small = Image.fromarray(truth.astype(np.uint8)).resize(predicted.shape[::-1], Image.Resampling.NEAREST)
            self._masks.append(np.stack([predicted, np.asarray(small) > 0]))
        if self.output_dir is not None and not self._shared:
            row["clean"] = _scores(state, raw, truth)
            if self.post_processed:
                row["post_processed"] = _scores(state, answer["mask"], truth)
        return row

    def _is_shared(self, item: dict[str, Any]) -> bool:
        return not self._training.isdisjoint(clip_images(item[CommonKeys.IMAGE]))

    def _score_clip(self, engine: Engine) -> None:
        scores = cast(Any, self.clip_scores)(*np.stack(self._masks, axis=1))
        self._present[-1]["published"] = {"clip": engine.state.item["name"], **scores, "in_training": self._shared}

    def _metrics(self, rows: list[dict[str, Any]], name: str) -> dict[str, float]:
        return {name: float(np.mean([row["dice"] for row in rows]))}

    def _write(self, engine: Engine, folder: Path, skipped: list[str]) -> None:
        protocols = ("clean", "post_processed", "published")
        found = {key: [row[key] for row in self.gathered.flat() if key in row] for key in protocols}
        report: dict[str, Any] = {"clean": None}
        report |= {key: segmentation_report(found[key]) for key in protocols[:2] if found[key]}
        if clips := found["published"]:
            names = [name for name in clips[0] if name not in ("clip", "in_training")]
            report["published"] = {name: float(np.mean([clip[name] for clip in clips])) for name in names}
            shared = [clip["clip"] for clip in clips if clip["in_training"]]
            report["published"] |= {"clips_in_training": shared, "clips": clips}
        write_json(folder / "segmentation.json", {**report, "skipped": skipped})
        if not found["clean"]:
            logger.warning("All evaluated videos were in training too: there is no clean result.")
            (folder / "segmentation_frames.csv").unlink(missing_ok=True)  # of another evaluation
            return
        columns = [column for column in found["clean"][0] if column != "alignment"]
        table = ([row[column] for column in columns] for row in found["clean"])
        write_csv(folder / "segmentation_frames.csv", columns, table)
        clean, dice = report["clean"], report["clean"]["per_frame"]["dice"]
        interval = " [{:.3f}, {:.3f}]".format(*dice["interval"]) if dice["interval"] else ""
        summary = f"{clean['frames']} frames of {clean['sequences']} sequences: {dice['value']:.3f}{interval}"
        logger.info(f"Dice of {summary}. See {folder / 'segmentation.json'}.")


def _scores(state: State, mask: torch.Tensor, truth: np.ndarray) -> dict[str, Any]:
    item, probability = state.item, state.answer["probability"][0].double().numpy()
    sequence = str(item.get("video", item["name"]))
    group = str(item.get("group", sequence))
    scores = frame_scores(mask[0].numpy() > 0, probability, truth)
    return {"sequence": sequence, "group": group, "clip": item["name"], "frame": state.piece, **scores}


class MaskSaver(FrameSaver):
    """Writes masks: ``masks/*.png``, ``masks.nii.gz``, ``masks.json`` (COCO) and ``overlay.mp4``."""

    writers = MASK_WRITERS
