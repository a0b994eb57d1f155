# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from endofm_monai.metrics import knn_probe, linear_probe

PROBES = pytest.mark.parametrize("probe", [knn_probe, linear_probe])


def clusters(per_class: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Well separated clusters around the axes of a space with 6 dimensions."""
    labels = np.repeat(np.arange(classes), per_class)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(len(labels), 6))
    return np.eye(6)[labels] + noise, labels


def reference_knn(
    train: np.ndarray, train_labels: np.ndarray, features: np.ndarray, k: int, temperature: float
) -> np.ndarray:
    """The definition, as a loop."""
    predicted = []
    for feature in features:
        similarity = train @ feature / np.linalg.norm(train, axis=1) / np.linalg.norm(feature)
        votes = np.zeros(train_labels.max() + 1)
        for index in np.argsort(-similarity)[:k]:
            votes[train_labels[index]] += np.exp(similarity[index] / temperature)
        predicted.append(votes.argmax())
    return np.array(predicted)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0)])
def test_knn_follows_the_definition(k: int, temperature: float) -> None:
    random = np.random.default_rng(1)
    train, features = random.normal(size=(40, 3)), random.normal(size=(60, 3))
    train_labels, labels = random.integers(3, size=40), random.integers(3, size=60)
    expected = np.mean(reference_knn(train, train_labels, features, k, temperature) == labels)
    assert knn_probe(train, train_labels, features, labels, k, temperature)["accuracy"] == pytest.approx(expected)


def test_weights_let_one_near_clip_outvote_two_far_ones() -> None:
    train, train_labels = [[1.0, 0.05], [0.0, 1.0], [0.1, 1.0]], [0, 1, 1]
    assert knn_probe(train, train_labels, [[1.0, 0.0]], [0], k=3, temperature=0.07)["accuracy"] == 1
    assert knn_probe(train, train_labels, [[1.0, 0.0]], [0], k=3, temperature=100)["accuracy"] == 0


def test_tiny_temperature_is_the_nearest_clip() -> None:
    train, train_labels = clusters(8, 3)
    scores = knn_probe(train, train_labels, *clusters(4, 3, seed=1), k=20, temperature=1e-6)
    assert scores["accuracy"] == 1


@PROBES
def test_separable_classes_score_one_and_repeat_exactly(probe) -> None:
    train, held_out = clusters(20, 3), clusters(5, 3, seed=1)
    first = probe(*train, *held_out)
    assert first == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}
    assert probe(*train, *held_out) == first


@PROBES
def test_random_labels_score_chance(probe) -> None:
    random = np.random.default_rng(2)
    features, labels = random.normal(size=(400, 4)), random.integers(2, size=400)
    scores = probe(features[:200], labels[:200], features[200:], labels[200:])
    assert 0.4 < scores["accuracy"] < 0.6
    assert 0.4 < scores["roc_auc"] < 0.6


@PROBES
@pytest.mark.filterwarnings("ignore:k-NN probe")
def test_eight_clips_are_enough(probe) -> None:
    train, held_out = clusters(4, 2), clusters(2, 2, seed=1)
    assert probe(*train, *held_out) == dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"), 1.0)


@PROBES
def test_takes_tensors(probe) -> None:
    train, held_out = clusters(20, 2), clusters(5, 2, seed=1)
    tensors = [torch.as_tensor(array) for array in (*train, *held_out)]
    assert probe(*tensors) == probe(*train, *held_out)


def test_scores_of_imbalanced_classes() -> None:
    # one training clip a class; the probed ones: three right of class 0, one right and one wrong of class 1
    scores = knn_probe(np.eye(2), [0, 1], [[1, 0], [1, 0], [1, 0], [0, 1], [1, 0]], [0, 0, 0, 1, 1], k=1)
    assert scores["accuracy"] == pytest.approx(4 / 5)
    assert scores["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert scores["roc_auc"] == pytest.approx(3 / 4)


@PROBES
def test_labels_need_not_start_at_zero(probe) -> None:
    (train, train_labels), (features, labels) = clusters(20, 2), clusters(5, 2, seed=1)
    assert probe(train, train_labels + 3, features, labels + 3)["roc_auc"] == 1


@PROBES
def test_no_roc_auc_where_one_class_is_probed_and_no_warning(probe) -> None:
    (train, train_labels), (features, labels) = clusters(20, 2), clusters(5, 2, seed=1)
    features[0] = [0, 1, 0, 0, 0, 0]  # looks like class 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = probe(train, train_labels, features[labels == 0], labels[labels == 0])
    assert scores["balanced_accuracy"] == pytest.approx(4 / 5)
    assert "roc_auc" not in scores


@PROBES
def test_a_class_unknown_in_training_counts_as_wrong(probe) -> None:
    (features, labels) = clusters(5, 3, seed=1)
    scores = probe(*clusters(20, 2), features, labels)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["balanced_accuracy"] == pytest.approx(2 / 3)


def test_k_above_the_training_clips_is_reduced_with_a_warning() -> None:
    train, held_out = clusters(4, 2), clusters(5, 2, seed=1)
    with pytest.warns(UserWarning, match="only 8 training clips"):
        reduced = knn_probe(*train, *held_out, k=20)
    assert reduced == knn_probe(*train, *held_out, k=8)


@PROBES
@pytest.mark.filterwarnings("ignore:k-NN probe")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros(8, int)}, "two classes or more, but all are of class 0"),
        ({"features": np.ones((4, 5))}, "same width, but got 6 and 5"),
        ({"features": np.full((4, 6), np.nan)}, "4 of 4 probed clips are not finite"),
        ({"train_features": np.full((8, 6), np.inf)}, "8 of 8 training clips are not finite"),
        ({"labels": np.array([0, 1, -1, 0])}, r"probed clips must be class indices from 0, but got \[-1  0  1\]"),
        ({"train_labels": np.arange(8) / 8}, "training clips must be class indices"),
        ({"labels": np.array([0, 1])}, r"shapes \(4, 6\) and \(2,\)"),
        ({"features": np.zeros((0, 6)), "labels": np.zeros(0, int)}, "N > 0"),
    ],
)
def test_bad_input_is_named(probe, change, message: str) -> None:
    (train, train_labels), (features, labels) = clusters(4, 2), clusters(2, 2)
    given = {"train_features": train, "train_labels": train_labels, "features": features, "labels": labels}
    with pytest.raises(ValueError, match=message):
        probe(**{**given, **change})


@pytest.mark.parametrize("bad", [{"k": 0}, {"temperature": 0}])
def test_bad_settings(bad) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        knn_probe(*clusters(4, 2), *clusters(2, 2), **bad)
