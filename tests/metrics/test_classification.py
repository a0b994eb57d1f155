# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from endofm_monai.metrics import bootstrap_intervals, calibration_error, classification_scores


def draw(classes: int, items: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    probabilities = random.dirichlet(np.ones(classes), items)
    return probabilities, random.integers(0, classes, items)


def test_two_classes_agree_with_scikit_learn():
    probabilities, labels = draw(2)
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(probabilities, labels)
    assert scores["f1"] == pytest.approx(metrics.f1_score(labels, predicted))
    assert scores["precision"] == pytest.approx(metrics.precision_score(labels, predicted))
    assert scores["recall"] == pytest.approx(metrics.recall_score(labels, predicted))
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
    assert scores["average_precision"] == pytest.approx(metrics.average_precision_score(labels, probabilities[:, 1]))


def test_many_classes_agree_with_scikit_learn():
    probabilities, labels = draw(4)
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(probabilities, labels)
    assert "f1" not in scores
    for name, function in (("f1", metrics.f1_score), ("precision", metrics.precision_score)):
        assert scores[f"macro_{name}"] == pytest.approx(function(labels, predicted, average="macro"))
    assert scores["macro_recall"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))


def test_several_labels_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    probabilities, labels = random.random((60, 3)), random.integers(0, 2, (60, 3))
    predicted = probabilities > 0.5
    scores = classification_scores(probabilities, labels)
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores["average_precision"] == pytest.approx(metrics.average_precision_score(labels, probabilities))


def test_areas_of_equal_probabilities_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    probabilities, labels = random.integers(0, 4, (60, 3)) / 3, random.integers(0, 2, (60, 3))
    scores = classification_scores(probabilities, labels)
    assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities))
    assert scores["average_precision"] == pytest.approx(metrics.average_precision_score(labels, probabilities))


def test_labels_of_one_class_leave_areas_undefined():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    scores = classification_scores(probabilities, [0, 0])
    assert {name for name, score in scores.items() if math.isnan(score)} == {"roc_auc", "average_precision", "recall"}
    assert scores["accuracy"] == 0.5
    assert scores["f1"] == 0.0
    assert math.isnan(classification_scores(probabilities[:1], [0])["f1"])


def test_class_that_no_item_has_is_left_out_of_the_means():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1]])
    scores = classification_scores(probabilities, [0, 1, 1])
    assert scores["macro_recall"] == scores["macro_precision"] == scores["macro_f1"] == scores["roc_auc"] == 1.0
    assert classification_scores(probabilities, [2, 1, 1])["macro_precision"] == pytest.approx(1 / 3)


def test_calibration_error_by_hand():
    # bin 0.9: confidence 0.9, accuracy 1/2; bin 0.6: confidence 0.6, accuracy 1
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.6, 0.4]])
    assert calibration_error(probabilities, np.array([1, 0, 0])) == pytest.approx((2 * 0.4 + 0.4) / 3)
    assert calibration_error(np.eye(2), np.array([0, 1])) == 0
    assert calibration_error(np.array([[0.9, 0.2]]), np.array([[1, 0]])) == pytest.approx(0.15)


def test_calibrated_probabilities_have_a_small_error():
    random = np.random.default_rng(0)
    positive = random.random(50_000)
    labels = (random.random(50_000) < positive).astype(int)
    assert calibration_error(np.stack([1 - positive, positive], axis=1), labels) < 0.01


def bootstrap_interval(statistic, groups, **arguments):
    return bootstrap_intervals(lambda items: {"": statistic(items)}, groups, **arguments)[""]


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(lambda items: values[items].mean(), groups=np.arange(400))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.015)
    assert high == pytest.approx(values.mean() + half, abs=0.015)


def test_groups_are_drawn_whole():
    """Ten copies of each value say no more than one: the interval stays as wide as without them."""
    values = np.random.default_rng(0).standard_normal(40)
    copies = values.repeat(10)
    single = bootstrap_interval(lambda items: values[items].mean(), groups=np.arange(40))
    grouped = bootstrap_interval(lambda items: copies[items].mean(), groups=np.arange(40).repeat(10))
    apart = bootstrap_interval(lambda items: copies[items].mean(), groups=np.arange(400))
    assert grouped == pytest.approx(single)
    assert apart[1] - apart[0] < 0.5 * (grouped[1] - grouped[0])


def test_groups_of_any_order_and_size():
    values = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    groups = ["b", "a", "b", "a", "a"]
    seen = []
    bootstrap_interval(lambda items: seen.append(tuple(items)) or 0.0, groups, resamples=50)
    assert {len(items) for items in seen} == {4, 5, 6}
    assert all(values[list(items)].sum() == 3 * (sum(item == 1 for item in items)) for items in seen)


def test_seed_and_level():
    values = np.random.default_rng(1).standard_normal(30)

    def interval(**kwargs):
        return bootstrap_interval(lambda items: values[items].mean(), np.arange(30), **kwargs)

    assert interval() == interval()
    assert interval(seed=1) != interval()
    assert interval(level=0.5)[1] < interval()[1]


def test_undefined_resamples_are_left_out():
    labels = np.array([0, 1])
    interval = bootstrap_interval(lambda items: float("nan") if labels[items].min() else 0.5, np.arange(2))
    assert interval == (0.5, 0.5)
    assert np.isnan(bootstrap_interval(lambda items: float("nan"), [0, 1])).all()


def test_a_single_group_has_no_interval():
    assert np.isnan(bootstrap_interval(lambda items: 0.5, ["a", "a"])).all()  # and none of no width
    assert bootstrap_interval(lambda items: 0.5, ["a", "b"]) == (0.5, 0.5)


@pytest.mark.parametrize("wrong", [{"groups": []}, {"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="at least one item|`level`"):
        bootstrap_interval(lambda items: 0.0, **{"groups": [0, 1], **wrong})


def test_intervals_of_several_statistics_are_those_of_each():
    values = np.random.default_rng(0).standard_normal(30)
    both = bootstrap_intervals(
        lambda items: {"mean": values[items].mean(), "max": values[items].max()}, np.arange(30), resamples=100
    )
    assert both["mean"] == bootstrap_interval(lambda items: values[items].mean(), np.arange(30), resamples=100)
    assert both["max"][1] == values.max()
