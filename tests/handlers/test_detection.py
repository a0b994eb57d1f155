# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run_two_processes
from video_answers import evaluate_videos, write_frames

from endofm_monai.engines import VideoEvaluator
from endofm_monai.handlers import DetectionReport

TRUE = [5.0, 5.0, 25.0, 25.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[dict[str, Any]]:
    """Three videos of two frames, the first with a polyp of class 1, 2, 1."""
    folder = tmp_path_factory.mktemp("data")
    paths = (write_frames(folder / name, np.zeros((2, 48, 64, 3), np.uint8)) for name in "abc")
    return [
        {"image": image, "name": f"{name}/f0-f1", "video": name, "box": [[TRUE], []], "box_label": [[label], []]}
        for name, image, label in zip("abc", paths, (1, 2, 1), strict=True)
    ]


def answer(frame: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
    """Each frame has a detection of class 1 where the polyps are, best in the first one."""
    score = torch.tensor([0.9 - 0.5 * index])
    return {"box": torch.tensor([TRUE]), "label": torch.tensor([1]), "label_scores": score}


def run(data: list[dict[str, Any]], folder: Path | None, **options: Any) -> VideoEvaluator:
    report = DetectionReport(folder, ("one", "two"), resamples=20)
    return evaluate_videos(data, answer, metric=report, **options)


def test_report_and_key_metric(data, tmp_path):
    broken = {**data[2], "image": str(tmp_path / "no.mp4")}
    engine = run([*data[:2], broken], tmp_path)
    report = json.loads((tmp_path / "detection.json").read_text())
    assert engine.state.metrics["score"] == report["scores"]["ap50"] == pytest.approx(0.5)
    assert (report["videos"], report["frames"], report["negative_frames"], report["boxes"]) == (2, 4, 2, 2)
    assert report["threshold"] == pytest.approx(0.9)
    assert report["skipped"] == ["c/f0-f1"]
    assert set(report["intervals"]) == set(report["scores"])


def test_intervals_draw_videos_of_one_group_together(data, tmp_path):
    run([{**item, "group": group} for item, group in zip(data, "ggh", strict=True)], tmp_path)
    report = json.loads((tmp_path / "detection.json").read_text())
    assert report["scores"]["box_recall"] == pytest.approx(2 / 3)
    assert report["intervals"]["box_recall"] == pytest.approx([0.5, 1])  # not 0: the missed polyp is never drawn alone


def test_a_validation_without_boxes_chooses_no_weights(data, tmp_path, caplog):
    negative = {**data[0], "box": [[], []], "box_label": [[], []]}
    with pytest.raises(ValueError, match="'score', which chooses the weights, is undefined: no frame"):
        run([{**negative, "image": None}], None)  # before anything is read
    run([negative], tmp_path)
    report = json.loads((tmp_path / "detection.json").read_text())
    assert (report["negative_frames"], report["threshold"]) == (2, 1)
    assert "No detection is right, so the threshold is 1 and hardly one counts as false: set" in caplog.text


def test_true_boxes_end_at_the_frame(data):
    boxes = [[[-50, 10, 50, 40], [70, 5, 80, 9]], []]
    item = {**data[0], "box": boxes, "box_label": [[2, 1], []]}
    report = DetectionReport()
    evaluate_videos([item], answer, metric=report)
    first, second = report.rows.flat()
    assert (first.box.tolist(), first.label.tolist()) == ([[0, 10, 50, 40]], [2])
    assert second.box.shape == (0, 4)
    assert len(item["box"][0]) == 2


@pytest.mark.parametrize(
    "boxes", [{"box": [[TRUE]]}, {"box": [[], [[64, 5, 80, 9]]], "box_label": [[], [2]]}], ids=["length", "size"]
)
def test_a_video_of_another_length_or_size_than_its_boxes_is_left_out(data, tmp_path, boxes):
    run([data[0], {**data[1], **boxes}], tmp_path)
    assert json.loads((tmp_path / "detection.json").read_text())["skipped"] == ["b/f0-f1"]


def test_nothing_to_evaluate(data):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        run([{**data[0], "image": "no.mp4"}], None)


def evaluate_rank(rank: int, data: list[dict], folder: str) -> None:
    engine = run(data, Path(folder, str(rank)), places=[[0, 1], [2, 0]][rank])  # the first is seen twice
    Path(folder, f"{rank}.json").write_text(json.dumps(engine.state.metrics))


def test_processes_give_together_what_one_gives(data, tmp_path):
    run_two_processes(evaluate_rank, data, str(tmp_path))
    engine = run(data, tmp_path / "one")
    assert (tmp_path / "0" / "detection.json").read_text() == (tmp_path / "one" / "detection.json").read_text()
    assert not (tmp_path / "1").exists()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == engine.state.metrics
