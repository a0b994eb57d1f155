# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from sklearn.metrics import f1_score
from torch import nn

from endofm_monai.data import collate_clips
from endofm_monai.engines import ClipEvaluator
from endofm_monai.handlers import ClassificationReport

NAMES = ["normal", "abnormal"]


class Predicted(Dataset):
    """Clips whose probabilities are their image, with a video, a label and a place each."""

    def __getitem__(self, index):
        item = self.data[index]
        return item if "broken" in item else {**item, "index": index, "group": item["video"]}


def clip(video, probability, label):
    return {"video": video, "image": torch.tensor([1 - probability, probability]), "label": label}


CLIPS = [
    clip("a", 0.9, 1),
    clip("a", 0.2, 1),  # mean 0.55
    clip("b", 0.6, 0),
    clip("b", 0.1, 0),  # mean 0.35
    clip("c", 0.3, 1),
    clip("c", 0.4, 1),  # mean 0.35
    clip("d", 0.2, 0),
]


def evaluate(clips, output_dir=None, score="f1", batch_size=3, dataset=Predicted, **options):
    evaluator = make_evaluator(dataset(clips), ClassificationReport(score, output_dir, NAMES, **options), batch_size)
    evaluator.run()
    return evaluator.state


def make_evaluator(dataset, report, batch_size=3):
    return ClipEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=batch_size, collate_fn=collate_clips),
        network=nn.Identity(),
        key_val_metric={"score": report},
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_probabilities_are_averaged_by_video(batch_size):
    metrics = evaluate(CLIPS, batch_size=batch_size).metrics
    assert metrics["score"] == metrics["video_f1"] == pytest.approx(f1_score([1, 0, 1, 0], [1, 0, 0, 0]))
    assert metrics["clip_f1"] == pytest.approx(f1_score([1, 1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 0, 0, 0]))
    assert metrics["video_accuracy"] == 0.75


def test_undefined_scores_are_left_out_or_named():
    clips = [clip("a", 0.9, 1), clip("b", 0.8, 1)]
    assert "video_roc_auc" not in evaluate(clips).metrics
    with pytest.raises(ValueError, match=r"'roc_auc' is undefined for the 2 videos"):
        evaluate(clips, score="roc_auc")
    with pytest.raises(ValueError, match=r"no score 'f2' .* there are accuracy, f1"):
        evaluate(clips, score="f2")


def test_report(tmp_path):
    broken = {"broken": "videos/x.mp4: is not a readable video"}
    evaluate([*CLIPS, broken], tmp_path, score="accuracy", protocol="as the test says", resamples=200)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["protocol"] == "as the test says"
    assert report["unreadable"] == ["videos/x.mp4: is not a readable video"]
    assert report["video"]["number_by_class"] == {"normal": 2, "abnormal": 2}
    assert report["video"]["confusion_matrix"] == [[2, 0], [1, 1]]
    assert report["clip"]["confusion_matrix"] == [[2, 1], [3, 1]]
    accuracy = report["video"]["scores"]["accuracy"]
    assert accuracy["value"] == 0.75
    assert accuracy["interval_95"] == [0.25, 1.0]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["video"] for row in rows] == ["a", "b", "c", "d"]
    assert float(rows[0]["abnormal"]) == pytest.approx(0.55)
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_report_says_what_is_undefined(tmp_path):
    evaluate([clip("a", 0.9, 1), clip("b", 0.4, 1)], tmp_path, resamples=10)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    score = json.loads(text)["video"]["scores"]["roc_auc"]
    assert score["value"] is None
    assert score["undefined"] == "needs items with and without a class, found 0 normal, 2 abnormal"


def test_report_of_several_labels(tmp_path):
    clips = [
        {"video": name, "image": torch.tensor(probabilities), "label": torch.tensor(label)}
        for name, probabilities, label in (("a", [0.9, 0.8], [1.0, 1.0]), ("b", [0.2, 0.7], [0.0, 0.0]))
    ]
    state = evaluate(clips, tmp_path, score="macro_f1", resamples=10)
    assert state.metrics["score"] == pytest.approx((1 + 2 / 3) / 2)
    assert "confusion_matrix" not in json.loads((tmp_path / "metrics.json").read_text())["video"]
    assert "b,0 0,0.2" in (tmp_path / "predictions.csv").read_text()


def test_only_the_best_evaluation_is_reported(tmp_path):
    dataset = Predicted(CLIPS)
    evaluator = make_evaluator(dataset, ClassificationReport("accuracy", tmp_path, NAMES, resamples=10))
    evaluator.run(1)
    dataset.data = [{**item, "label": 1 - item["label"]} for item in CLIPS]
    evaluator.run(2)
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 1


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="no clip could be read"):
        evaluate([{"broken": "x.mp4: gone"}])


def test_bootstrap_draws_groups(tmp_path):
    """Two videos of one patient are drawn together."""
    random = np.random.default_rng(0)
    clips = [clip(str(number), float(random.random()), number // 6 % 2) for number in range(24)]

    class Grouped(Predicted):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "group": index // 6}

    widths = []
    for dataset in (Predicted, Grouped):
        evaluate(clips, tmp_path, score="accuracy", batch_size=8, dataset=dataset, resamples=200)
        scores = json.loads((tmp_path / "metrics.json").read_text())["video"]["scores"]
        widths.append(scores["accuracy"]["interval_95"])
    assert widths[0] != widths[1]
