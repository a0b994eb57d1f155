# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from endofm_monai.metrics import DetectionFrame, average_precision, bootstrap_intervals, detection_report
from endofm_monai.metrics.detection import best_threshold, box_scores, center_scores, polyp_scores, presence_scores

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())["metrics"]
A, B, FAR = [10, 10, 30, 30], [50, 50, 80, 90], [200, 200, 220, 220]
HALF_A = [10, 10, 30, 21]  # IoU 0.55 with A


def frame(true, detected, video="v", index=0, labels=None, classes=None) -> DetectionFrame:
    """A frame with ``true`` boxes and ``detected`` pairs of box and score, all of class 1 unless said otherwise."""
    boxes, scores = [box for box, _ in detected], [score for _, score in detected]
    return DetectionFrame(
        video, index, true, labels or [1] * len(true), boxes, classes or [1] * len(boxes), np.array(scores)
    )


@pytest.mark.parametrize("expected", GOLDEN["results"], ids=lambda expected: str(expected["score_threshold"]))
def test_published_metrics_are_reproduced(expected):
    frames = [
        DetectionFrame(
            "v", i, f["gt_boxes"], f["gt_labels"], f["pred_boxes"], [1] * len(f["pred_boxes"]), f["pred_scores"]
        )
        for i, f in enumerate(GOLDEN["frames"])
    ]
    presence = presence_scores(frames, expected["score_threshold"])
    center = center_scores(frames, expected["score_threshold"])
    for found, published in ((presence, expected["frame_level"]), (center, expected["centre_hit"])):
        assert {name: 100 * found[name] for name in published} == pytest.approx(published, rel=1e-5)


def random_frames(seed: int, videos: int = 1) -> list[DetectionFrame]:
    random = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = random.uniform(0, 80, (count, 2))
        return np.concatenate([corner, corner + random.uniform(10, 40, (count, 2))], axis=1)

    frames = []
    for index in range(40):
        count = random.integers(0, 4)
        true, label = boxes(count), random.integers(1, 3, count)
        found = random.random(count) < 0.8
        near = true[found] + random.normal(0, 4, (found.sum(), 4))
        near_label = np.where(random.random(found.sum()) < 0.85, label[found], 3 - label[found])
        false = boxes(count := random.integers(0, 3))
        detected = np.concatenate([near, false])
        detected_label = np.concatenate([near_label, random.integers(1, 3, count)])
        detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2] + 1)
        score = np.round(random.random(len(detected)), 6)
        frames.append(DetectionFrame(f"v{index % videos}", index, true, label, detected, detected_label, score))
    return frames


@pytest.mark.parametrize(
    ("seed", "ap50", "ap"),
    [(0, 0.20026558736954778, 0.07313544229309069), (1, 0.16568957126127357, 0.0642228403319994)],
)
def test_average_precision_is_that_of_pycocotools(seed, ap50, ap):
    """The expected values were calculated with pycocotools 2.0.11 from the same boxes."""
    assert average_precision(random_frames(seed)) == pytest.approx({"ap50": ap50, "ap": ap}, abs=1e-12)


def test_average_precision_reaches_the_highest_recall():
    # which is 0.9 in float64, as of pycocotools, and less in float32
    frames = [frame([A], [(A, 0.9)] if index else [], index=index) for index in range(10)]
    assert average_precision(frames) == pytest.approx({"ap50": 91 / 101, "ap": 91 / 101}, abs=1e-12)


def test_box_scores_count_each_true_box_once_and_by_class():
    frames = [
        frame([A, B], [(A, 0.9), (HALF_A, 0.8), (FAR, 0.3)]),  # one right, one double, B missed
        frame([A], [(A, 0.7)], index=1, labels=[2], classes=[1]),  # of the wrong class
        frame([], [(FAR, 0.6), (A, 0.2)], index=2),
        frame([], [], index=3),
    ]
    scores = box_scores(frames, 0.5)
    assert scores["precision"] == pytest.approx(1 / 4)
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(2 / (4 + 3))
    assert scores["false_positives_per_negative_frame"] == pytest.approx(1 / 2)
    second = box_scores(frames, 0.5, label=2)
    assert (second["recall"], math.isnan(second["precision"])) == (0.0, True)
    assert box_scores(frames, 0.1)["false_positives_per_negative_frame"] == 1.0


def test_average_precision_of_a_case_by_hand():
    # in order of score: right, wrong, right; 2 of 3 true boxes found: precision 1 up to recall 1/3, 2/3 up to 2/3
    frames = [frame([A, B], [(A, 0.9), (FAR, 0.8), (B, 0.7)]), frame([A], [], index=1)]
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert average_precision(frames)["ap50"] == pytest.approx(expected, abs=1e-6)
    assert average_precision(frames)["ap"] == pytest.approx(expected, abs=1e-6)
    loose = [frame([A], [(HALF_A, 0.9)])]
    assert average_precision(loose)["ap50"] == pytest.approx(1)
    assert average_precision(loose)["ap"] == pytest.approx(0.2)  # IoU 0.50 and 0.55 of ten


def test_best_threshold_has_the_best_f1():
    frames = [frame([A], [(A, 0.9), (FAR, 0.2)]), frame([B], [(B, 0.4)], index=1), frame([], [(FAR, 0.3)], index=2)]
    assert best_threshold(frames) == pytest.approx(0.4)
    assert box_scores(frames, best_threshold(frames))["f1"] == 1
    assert best_threshold([frame([A], [])]) == 1.0
    tied = [frame([A], [(A, 0.9)]), frame([B], [(B, 0.5)] + [(FAR, 0.5)] * 10, index=1)]
    assert best_threshold(tied) == pytest.approx(0.9)  # a threshold of 0.5 lets all eleven in


def test_polyps_are_found_late_or_never():
    frames = [
        frame([], [(A, 0.9)], "a", 0),
        frame([A], [(FAR, 0.9)], "a", 1),
        frame([A], [(A, 0.3)], "a", 2),
        frame([A], [(A, 0.9)], "a", 3),
        frame([A], [], "b", 0),
        frame([A], [(A, 0.9)], "b", 1, labels=[2], classes=[2]),
    ]
    found = {(polyp["video"], polyp["label"]): polyp for polyp in polyp_scores(frames[::-1], 0.5)}
    assert set(found) == {("a", 1), ("b", 1), ("b", 2)}
    assert (found["a", 1]["detected"], found["a", 1]["delay"]) == (1, 2)
    assert (found["b", 1]["detected"], math.isnan(found["b", 1]["delay"])) == (0, True)
    assert found["b", 2]["delay"] == 0


def test_nothing_detected_and_nothing_to_detect():
    nothing = [frame([], [], index=index) for index in range(3)]
    assert math.isnan(average_precision(nothing)["ap50"])
    assert math.isnan(presence_scores(nothing)["f1"])
    assert presence_scores(nothing)["specificity"] == 1
    missed = [frame([A], [])]
    assert average_precision(missed) == {"ap50": 0.0, "ap": 0.0}
    assert box_scores(missed, 0.5)["recall"] == 0


def test_report_has_all_of_whole_videos():
    frames = [frame([A], [(A, 0.8)], "a"), frame([], [], "a", 1), frame([A], [], "b"), frame([], [], "b", 1)]
    assert average_precision(frames)["ap50"] == pytest.approx(51 / 101)
    report = detection_report(frames, threshold=0.5, resamples=50)
    assert (report["videos"], report["frames"], report["negative_frames"], report["boxes"]) == (2, 4, 2, 2)
    assert report["scores"]["ap50"] == pytest.approx(51 / 101)
    assert report["scores"]["box_recall"] == 0.5
    assert report["scores"]["polyp_detection_rate"] == 0.5
    assert report["scores"]["polyp_delay_frames"] == 0
    assert report["intervals"]["box_recall"] == (0.0, 1.0)
    assert report["intervals"]["polyp_detection_rate"] == (0.0, 1.0)
    assert detection_report(frames)["threshold"] == pytest.approx(0.8)
    by_class = detection_report(frames, ("adenoma", "other"), 0.5)["scores"]
    assert (by_class["box_adenoma_recall"], math.isnan(by_class["box_other_recall"])) == (0.5, True)


def test_intervals_are_those_of_frames_that_are_drawn_again():
    frames = random_frames(2, videos=5)

    def of_frames(indices: np.ndarray) -> dict[str, float]:
        drawn = [frames[index] for index in indices]
        parts = {"presence": presence_scores(drawn), "center": center_scores(drawn, 0.4), "box": box_scores(drawn, 0.4)}
        parts |= {f"box_{name}": box_scores(drawn, 0.4, label) for label, name in ((1, "adenoma"), (2, "other"))}
        named = {f"{part}_{name}": score for part, scores in parts.items() for name, score in scores.items()}
        return {**average_precision(drawn), **named}

    intervals = detection_report(frames, ("adenoma", "other"), 0.4, resamples=30)["intervals"]
    expected = bootstrap_intervals(of_frames, [frame.video for frame in frames], resamples=30)
    assert {name: intervals[name] for name in expected} == expected
    assert len({*expected.values()}) > 20


def test_parts_of_a_video_stand_for_themselves_but_are_drawn_together():
    frames = [DetectionFrame(n, i, [A], [1], [], [], [], "v") for n in ("v_0-1", "v_2-3") for i in range(2)]
    report = detection_report(frames, threshold=0.5, resamples=20)
    assert (report["videos"], report["frames"]) == (2, 4)
    assert [polyp["video"] for polyp in report["polyps"]] == ["v_0-1", "v_2-3"]
    assert np.isnan(report["intervals"]["polyp_detection_rate"]).all()  # a single group has none
    assert {frame.group for frame in frames} == {"v"}
