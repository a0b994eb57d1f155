# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch

from endofm_monai.metrics.bootstrap import bootstrap_intervals
from endofm_monai.metrics.detection import (
    DetectionFrame,
    average_precision,
    best_threshold,
    box_scores,
    center_scores,
    polyp_scores,
    presence_scores,
)

__all__ = ["DetectionMetric"]


class DetectionMetric:
    """Everything that is measured of a detector on videos, for MONAI's ``IgniteMetricHandler``.

    Args:
        class_names: names of the classes, from 1 on.
        threshold: smallest score of a detection, for all but the average precision; by default the one with the best
            F1 on these videos, which is only fair on validation data.
    """

    def __init__(self, class_names: Sequence[str] = ("polyp",), threshold: float | None = None) -> None:
        self.class_names = tuple(class_names)
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forget all videos."""
        self.frames: list[DetectionFrame] = []

    def __call__(self, predictions: Sequence[Sequence[dict[str, torch.Tensor]]], videos: Sequence[dict]) -> None:
        """Take the detections in each frame of videos, and the videos' items.

        Those have ``name``, which no other one has, ``video``, what intervals draw as a whole, and ``box`` and
        ``box_label`` of each frame, see :func:`endofm_monai.data.load_box_datalist`.

        Raises:
            ValueError: when a video has another number of frames than boxes.
        """
        for frames, item in zip(predictions, videos, strict=True):
            if len(frames) != len(item["box"]):
                raise ValueError(
                    f"{item['name']}: has {len(frames)} frames, but boxes are given for {len(item['box'])} frames."
                )
            for index, (found, box, label) in enumerate(zip(frames, item["box"], item["box_label"], strict=True)):
                truth = np.array(box), np.array(label)
                found_box, found_label, score = (found[key].cpu().numpy() for key in ("box", "label", "label_scores"))
                frame = DetectionFrame(item["name"], index, *truth, found_box, found_label, score, item["video"])
                self.frames.append(frame)

    def aggregate(self) -> float:
        """The AP50 of the videos of all processes, the key metric.

        Raises:
            ValueError: when there is no frame.
        """
        self._gather()
        if not self.frames:
            raise ValueError("There is nothing to evaluate: no video could be read.")
        return average_precision(self.frames)["ap50"]

    def get_buffer(self) -> dict[str, Any]:
        """All results, see ``report``."""
        return self.report()

    def report(self, resamples: int = 0, seed: int = 0) -> dict[str, Any]:
        """All results by name.

        Args:
            resamples: number of bootstrap resamples of whole videos for 95 % intervals; 0 for none.
            seed: seed of the resampling.

        Returns:
            ``threshold``, the numbers of ``videos``, ``frames``, ``negative_frames`` and ``boxes``, ``scores`` by name,
            ``intervals`` likewise, and ``polyps``, see :func:`endofm_monai.metrics.polyp_scores`.
        """
        threshold = best_threshold(self.frames) if self.threshold is None else self.threshold
        polyps = polyp_scores(self.frames, threshold)

        def of_frames(indices: np.ndarray) -> dict[str, float]:
            return self._frame_scores([self.frames[index] for index in indices], threshold)

        def of_polyps(indices: np.ndarray) -> dict[str, float]:
            detected = np.array([polyps[index]["detected"] for index in indices], float)
            delay = np.array([polyps[index]["delay"] for index in indices], float)[detected > 0]
            rate = detected.mean() if len(detected) else np.nan
            return {"polyp_detection_rate": rate, "polyp_delay_frames": delay.mean() if len(delay) else np.nan}

        report: dict[str, Any] = {
            "threshold": threshold,
            "videos": len({frame.video for frame in self.frames}),
            "frames": len(self.frames),
            "negative_frames": sum(len(frame.box) == 0 for frame in self.frames),
            "boxes": sum(len(frame.box) for frame in self.frames),
            "scores": {**of_frames(np.arange(len(self.frames))), **of_polyps(np.arange(len(polyps)))},
            "polyps": polyps,
        }
        if resamples and self.frames:
            groups = [frame.group for frame in self.frames]
            report["intervals"] = bootstrap_intervals(of_frames, groups, resamples=resamples, seed=seed)
            if polyps:
                group_of = {frame.video: frame.group for frame in self.frames}
                groups = [group_of[str(polyp["video"])] for polyp in polyps]
                report["intervals"] |= bootstrap_intervals(of_polyps, groups, resamples=resamples, seed=seed)
        return report

    def _frame_scores(self, frames: Sequence[DetectionFrame], threshold: float) -> dict[str, float]:
        parts = {"presence": presence_scores(frames), "center": center_scores(frames, threshold)}
        parts["box"] = box_scores(frames, threshold)
        if len(self.class_names) > 1:
            for label, name in enumerate(self.class_names, start=1):
                parts[f"box_{name}"] = box_scores(frames, threshold, label)
        named = {f"{part}_{name}": value for part, scores in parts.items() for name, value in scores.items()}
        return {**average_precision(frames), **named}

    def _gather(self) -> None:
        if idist.get_world_size() > 1:
            gathered = [frame for frames in idist.all_gather(self.frames) for frame in frames]
            # a distributed sampler may repeat a video to give all processes equally many
            self.frames = list({(frame.video, frame.index): frame for frame in gathered}.values())
