# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from endofm_monai.metrics import calibration_error, classification_scores


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
    assert scores["macro_recall"] == scores["macro_f1"] == scores["roc_auc"] == 1.0


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
