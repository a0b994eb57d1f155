# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Samples = tuple[np.ndarray, np.ndarray]  # features (N, D) and class indices (N,)
NEIGHBORS, TEMPERATURE = 20, 0.07  # of the protocol of DINO


def knn_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    k: int = NEIGHBORS,
    temperature: float = TEMPERATURE,
) -> dict[str, float]:
    """How well the nearest training clips predict the class of a clip: a measure of frozen embeddings.

    The k training clips of highest cosine similarity vote with the weight ``exp(similarity / temperature)``
    (Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018; the protocol
    of DINO). There is nothing to train and nothing random.

    Args:
        train_features: embeddings ``(N, D)`` of the training clips.
        train_labels: their class indices ``(N,)``, of two classes or more.
        features: embeddings ``(M, D)`` of the clips to classify.
        labels: their class indices ``(M,)``.
        k: number of neighbors that vote; with fewer training clips all of them do, after a warning.
        temperature: the lower, the more the nearest of the neighbors decide.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (mean recall of the classes in ``labels``), ``macro_f1`` and, when there
        are two training classes and ``labels`` holds both, ``roc_auc`` (area under the ROC curve); all in 0..1.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"`k` and `temperature` must be positive, but got {k} and {temperature}.")
    train = _check(train_features, train_labels, "training")
    if k > (clips := len(train[0])):
        warnings.warn(f"k-NN probe: only {clips} training clips, so all of them vote, not k={k}.", stacklevel=2)

    def vote(distance: np.ndarray) -> np.ndarray:  # relative to the nearest, which no temperature can underflow
        return np.exp((distance.min(axis=1, keepdims=True) - distance) / temperature)

    classifier = KNeighborsClassifier(min(k, clips), metric="cosine", weights=vote)
    return _scores(classifier, train, _check(features, labels, "probed"))


def linear_classifier() -> Pipeline:
    """A logistic regression with L2 penalty and ``C = 1``, on features that are standardized by the training clips."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=10_000))


def linear_probe(
    train_features: ArrayLike, train_labels: ArrayLike, features: ArrayLike, labels: ArrayLike
) -> dict[str, float]:
    """How well a linear classifier on frozen embeddings predicts the class of a clip; see :func:`knn_probe`.

    It is a :func:`linear_classifier`, fitted to convergence. Nothing is tuned, so that no split is needed for it, and
    nothing is random.
    """
    train, probed = _check(train_features, train_labels, "training"), _check(features, labels, "probed")
    return _scores(linear_classifier(), train, probed)


def retrieval(first: ArrayLike, second: ArrayLike) -> float:
    """Share of the windows that are nearest, by cosine, to the other window of their own video, in both directions.

    Given are embeddings ``(N, D)`` of two windows of each video, in the same order.
    """
    similarity = cosine_similarity(np.asarray(first, np.float64), np.asarray(second, np.float64))
    return float(np.mean([similarity.argmax(axis=axis) == np.arange(len(similarity)) for axis in (0, 1)]))


def _check(features: ArrayLike, labels: ArrayLike, role: str) -> Samples:
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or features.size == 0:
        shapes = f"{features.shape} and {labels.shape}"
        raise ValueError(f"The {role} clips need features (N, D) and labels (N,), N > 0, but got shapes {shapes}.")
    if not np.isfinite(features).all():
        broken = np.count_nonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(f"The features of {broken} of {len(features)} {role} clips are not finite.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"The labels of the {role} clips must be class indices from 0, but got {np.unique(labels)}.")
    return features, labels


def _scores(classifier: ClassifierMixin, train: Samples, probed: Samples) -> dict[str, float]:
    classes, (features, labels) = np.unique(train[1]), probed
    if len(classes) < 2:
        raise ValueError(f"A probe needs training clips of two classes or more, but all are of class {classes[0]}.")
    widths = [train[0].shape[1], features.shape[1]]
    if widths[0] != widths[1]:
        raise ValueError(f"Training and probed features must have the same width, but got {widths[0]} and {widths[1]}.")
    probability = classifier.fit(*train).predict_proba(features)
    predicted, present = classes[probability.argmax(axis=1)], np.unique(labels)
    scores = {
        "accuracy": accuracy_score(labels, predicted),
        # balanced_accuracy_score would warn about predicted classes that `labels` lacks
        "balanced_accuracy": recall_score(labels, predicted, labels=present, average="macro", zero_division=0),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
    }
    if len(classes) == 2 and np.array_equal(present, classes):
        scores["roc_auc"] = roc_auc_score(labels, probability[:, 1])
    return {name: float(score) for name, score in scores.items()}
