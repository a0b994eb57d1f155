# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou

from endofm_monai.metrics.classification import bootstrap_intervals, mean_of_defined

IOUS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)  # of COCO's average precision
_HALF = 0  # place of the IoU 0.5


@dataclass
class DetectionFrame:
    """True and detected boxes of a frame of a video, xyxy in pixels; classes count from 1."""

    video: str  # or a part of one that stands for itself; no other one has its name
    index: int  # number of the frame in it
    box: np.ndarray  # true boxes (G, 4)
    label: np.ndarray  # their classes (G,)
    pred_box: np.ndarray  # detected boxes (D, 4)
    pred_label: np.ndarray  # their classes (D,)
    pred_score: np.ndarray  # their scores (D,)
    group: str = ""  # what intervals draw as a whole: by default the video
    matches: dict[int, dict[str, np.ndarray]] = field(init=False, repr=False)  # by class, of the 100 best detections

    def __post_init__(self) -> None:
        self.group = self.group or self.video
        self.box, self.pred_box = (np.asarray(box, np.float32).reshape(-1, 4) for box in (self.box, self.pred_box))
        self.label, self.pred_label = (np.asarray(label, np.int64) for label in (self.label, self.pred_label))
        self.pred_score = np.asarray(self.pred_score, np.float32)
        parts = [[part] for part in (self.pred_box, self.pred_label, self.pred_score, self.box, self.label)]
        (self.matches,) = matching_batch(box_iou, IOUS.tolist(), *parts)


def presence_scores(frames: Sequence[DetectionFrame], threshold: float = 0.5) -> dict[str, float]:
    """The published metric of KUMC: whether frames show a polyp, whatever its place, number and class.

    A frame is predicted positive when any detection has a score of at least ``threshold``. A detector that fires on
    every frame has a recall of 1, and a precision of 1 where no frame is negative.

    Returns:
        ``precision``, ``recall``, ``specificity``, ``accuracy``, ``f1`` and ``f2``, NaN where undefined.
    """
    return _presence(*_presence_counts(frames, threshold).sum(axis=0))


def center_scores(frames: Sequence[DetectionFrame], threshold: float = 0.5) -> dict[str, float]:
    """The published code's unused metric: whether centers of detections lie in true boxes, whatever the classes.

    A true box is found when it holds any center; detections beyond the number of pairs of a center and its box are
    false. Frames without a true box are left out, see ``false_positives_per_negative_frame`` of :func:`box_scores`.
    """
    return _scores(*_center_counts(frames, threshold).sum(axis=0))


def box_scores(frames: Sequence[DetectionFrame], threshold: float, label: int | None = None) -> dict[str, float]:
    """Boxes found with an IoU of at least 0.5 and the right class; each true box at most once, by the best score.

    Returns:
        ``precision``, ``recall``, ``f1`` and ``f2``, and ``false_positives_per_negative_frame``, the mean number of
        detections in frames without a true box, all of the class ``label`` if there is one; NaN where undefined.
    """
    return _boxes(*_box_counts(frames, threshold, label).sum(axis=0))


def best_threshold(frames: Sequence[DetectionFrame]) -> float:
    """The score from which on detections have the best F1 at IoU 0.5, 1 when none is right; for validation data."""
    ranking = _rank(frames)
    tp = ranking.is_right[_HALF].cumsum()
    f1 = 2 * tp / (np.arange(1, len(tp) + 1) + max(ranking.boxes.sum(), 1))
    f1[:-1][np.diff(ranking.score) == 0] = 0  # a threshold takes all of a score
    return float(ranking.score[np.argmax(f1)]) if tp.any() else 1.0


def average_precision(frames: Sequence[DetectionFrame]) -> dict[str, float]:
    """COCO's average precision, mean over the classes with true boxes: ``ap50`` at IoU 0.5, ``ap`` at 0.5 to 0.95."""
    return _average_precision(_rank_classes(frames), np.ones(len(frames), np.int64))


def polyp_scores(frames: Sequence[DetectionFrame], threshold: float) -> list[dict[str, float | str | int]]:
    """When each polyp of a video, that is the true boxes of one class in it, is found first (IoU 0.5, right class).

    Returns:
        for each polyp ``video``, ``label``, ``detected`` (0 or 1), and ``delay``, the frames from the first in which
        it is visible to the first in which it is found; NaN when it is not.
    """
    visible: dict[tuple[str, int], int] = {}
    found: dict[tuple[str, int], int] = {}
    for frame in sorted(frames, key=lambda frame: (frame.video, frame.index)):
        for label in np.unique(frame.label).tolist():
            visible.setdefault((frame.video, label), frame.index)
            match = frame.matches[label]
            if np.any((match["dtScores"] >= threshold) & (match["dtMatches"][_HALF] > 0)):
                found.setdefault((frame.video, label), frame.index)
    delays = {polyp: found.get(polyp, np.nan) - first for polyp, first in visible.items()}
    return [
        {"video": video, "label": label, "detected": int((video, label) in found), "delay": delay}
        for (video, label), delay in delays.items()
    ]


def detection_report(
    frames: Sequence[DetectionFrame],
    class_names: Sequence[str] = ("polyp",),
    threshold: float | None = None,
    resamples: int = 0,
) -> dict[str, Any]:
    """Everything that is measured of a detector on videos, of which all frames are given.

    The ``threshold`` is the smallest score of a detection, for all but the average precision and the presence, whose
    own is 0.5; by default the one with the best F1 on these videos, which is only fair on validation data. The
    ``resamples`` are of whole videos.

    Returns:
        ``threshold``, the numbers of ``videos``, ``frames``, ``negative_frames`` and ``boxes``, ``scores`` by name,
        ``polyps``, see :func:`polyp_scores`, and with ``resamples`` the 95 % ``intervals`` of the scores.
    """
    chosen = best_threshold(frames) if threshold is None else threshold
    polyps = polyp_scores(frames, chosen)
    delays = np.array([polyp["delay"] for polyp in polyps], float)

    rankings = _rank_classes(frames)
    parts: dict[str, tuple[Callable[..., dict[str, float]], np.ndarray]] = {
        "presence": (_presence, _presence_counts(frames)),
        "center": (_scores, _center_counts(frames, chosen)),
        "box": (_boxes, _box_counts(frames, chosen)),
    }
    if len(class_names) > 1:
        parts |= {f"box_{name}": (_boxes, _box_counts(frames, chosen, i)) for i, name in enumerate(class_names, 1)}

    def of_frames(indices: np.ndarray) -> dict[str, float]:
        drawn = np.bincount(indices, minlength=len(frames))
        scores = {part: score(*(drawn @ counts)) for part, (score, counts) in parts.items()}
        named = {f"{part}_{name}": value for part, values in scores.items() for name, value in values.items()}
        return {**_average_precision(rankings, drawn), **named}

    def of_polyps(indices: np.ndarray) -> dict[str, float]:
        delay = delays[indices]
        rate = _ratio(np.isfinite(delay).sum(), len(delay))
        return {"polyp_detection_rate": rate, "polyp_delay_frames": mean_of_defined(delay)}

    report: dict[str, Any] = {
        "threshold": chosen,
        "videos": len({frame.video for frame in frames}),
        "frames": len(frames),
        "negative_frames": sum(len(frame.box) == 0 for frame in frames),
        "boxes": sum(len(frame.box) for frame in frames),
        "scores": {**of_frames(np.arange(len(frames))), **of_polyps(np.arange(len(polyps)))},
        "polyps": polyps,
    }
    if resamples and frames:
        group_of = {frame.video: frame.group for frame in frames}
        groups = [frame.group for frame in frames]
        report["intervals"] = bootstrap_intervals(of_frames, groups, resamples=resamples)
        if polyps:
            groups = [group_of[str(polyp["video"])] for polyp in polyps]
            report["intervals"] |= bootstrap_intervals(of_polyps, groups, resamples=resamples)
    return report


@dataclass
class _Ranking:
    """D detections in N frames, of one class or of all, the best first."""

    frame: np.ndarray  # places of their frames (D,)
    score: np.ndarray  # (D,)
    is_right: np.ndarray  # at each of the ``IOUS`` (10, D)
    boxes: np.ndarray  # numbers of true boxes of the frames (N,)


def _rank(frames: Sequence[DetectionFrame], label: int | None = None) -> _Ranking:
    matches = [(i, match) for i, frame in enumerate(frames) for c, match in frame.matches.items() if label in (None, c)]
    score = np.concatenate([np.zeros(0, np.float32), *(match["dtScores"] for _, match in matches)])
    nothing = np.zeros((len(IOUS), 0), bool)
    is_right = np.concatenate([nothing, *(match["dtMatches"] > 0 for _, match in matches)], axis=1)
    frame = np.array([i for i, match in matches for _ in match["dtScores"]], np.int64)
    boxes = np.array([len(each.label) if label is None else np.sum(each.label == label) for each in frames], np.int64)
    order = np.argsort(-score, kind="stable")
    return _Ranking(frame[order], score[order], is_right[:, order], boxes)


def _rank_classes(frames: Sequence[DetectionFrame]) -> list[_Ranking]:
    return [_rank(frames, label) for label in sorted({int(label) for frame in frames for label in frame.label})]


def _average_precision(rankings: Sequence[_Ranking], drawn: np.ndarray) -> dict[str, float]:
    """Average precision where each frame counts as often as ``drawn`` ``(N,)`` says."""
    results = []
    for ranking in rankings:
        if total := drawn @ ranking.boxes:
            times = drawn[ranking.frame]
            rank = times.cumsum()
            results.append([_area(times[right].cumsum(), rank[right], total) for right in ranking.is_right])
    by_iou = np.mean(results, axis=0) if results else np.full(len(IOUS), np.nan)
    return {"ap50": float(by_iou[_HALF]), "ap": float(by_iou.mean())}


def _area(hits: np.ndarray, rank: np.ndarray, total: int) -> float:
    """Mean over the ``RECALLS`` of the highest precision from each on, which a right detection has."""
    highest = np.maximum.accumulate((hits / np.maximum(rank, 1))[::-1])[::-1]
    reached = np.searchsorted(hits / total, RECALLS)  # in float64: in float32, as of MONAI, the last may be missed
    return float(np.append(highest, 0)[reached].mean())


def _presence_counts(frames: Sequence[DetectionFrame], threshold: float = 0.5) -> np.ndarray:
    """True and false positives, false and true negatives of each frame ``(N, 4)``."""
    actual = np.array([len(frame.box) > 0 for frame in frames], bool)
    found = np.array([(frame.pred_score >= threshold).any() for frame in frames], bool)
    return np.stack([actual & found, ~actual & found, actual & ~found, ~actual & ~found], axis=1).astype(np.int64)


def _presence(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    return {**_scores(tp, fp, fn), "specificity": _ratio(tn, tn + fp), "accuracy": _ratio(tp + tn, tp + fp + fn + tn)}


def _center_counts(frames: Sequence[DetectionFrame], threshold: float) -> np.ndarray:
    """Found, false and missed of each frame ``(N, 3)``."""
    counts = np.zeros((len(frames), 3), np.int64)
    for index, frame in enumerate(frames):
        if len(frame.box):
            box = frame.pred_box[frame.pred_score >= threshold]
            center = (box[:, None, :2] + box[:, None, 2:]) / 2
            hits = ((center > frame.box[:, :2]) & (center < frame.box[:, 2:])).all(axis=2)  # (D, G)
            found = hits.any(axis=0).sum()
            counts[index] = found, max(len(box) - hits.sum(), 0), len(frame.box) - found
    return counts


def _box_counts(frames: Sequence[DetectionFrame], threshold: float, label: int | None = None) -> np.ndarray:
    """Found, false and missed of each frame; and of one without true boxes its detections, and 1 ``(N, 5)``."""
    ranking = _rank(frames, label)
    above = ranking.score >= threshold
    found = np.bincount(ranking.frame[above & ranking.is_right[_HALF]], minlength=len(frames))
    detected = np.bincount(ranking.frame[above], minlength=len(frames))
    is_empty = ranking.boxes == 0
    false = [np.sum((f.pred_score >= threshold) & ((label is None) | (f.pred_label == label))) for f in frames]
    counts = [found, detected - found, ranking.boxes - found, is_empty * np.array(false, np.int64), is_empty]
    return np.stack(counts, axis=1)


def _boxes(tp: int, fp: int, fn: int, false: int, empty: int) -> dict[str, float]:
    return {**_scores(tp, fp, fn), "false_positives_per_negative_frame": _ratio(false, empty)}


def _scores(tp: int, fp: int, fn: int) -> dict[str, float]:
    return {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "f2": _ratio(5 * tp, 5 * tp + fp + 4 * fn),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
