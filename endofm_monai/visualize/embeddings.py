# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from endofm_monai.visualize.figure import new_figure, save_figure

__all__ = ["MIN_CLIPS", "plot_embeddings"]

MIN_CLIPS = 3  # two points always lie on a line
MIN_TSNE_CLIPS = 50  # t-SNE finds groups in any few points
MARKERS = "osD^vP*X<>"


def plot_embeddings(embeddings: ArrayLike, labels: ArrayLike | None, path: str | os.PathLike) -> Figure:
    """Draw clip embeddings in the plane, colored by label.

    Below 50 clips the plane is that of the first two principal components, else a t-SNE map; the title says which.
    Both give the same picture each time.

    Args:
        embeddings: ``(N, D)``, N >= 3, D >= 2.
        labels: class indices ``(N,)``, negative for a clip without one; None if no clip has one.
        path: the picture to write, for example a ``.png``.

    Returns:
        the figure, as it is written.

    Raises:
        ValueError: when there are fewer than 3 clips or 2 dimensions, or an embedding is not finite.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    labels = np.full(len(embeddings), -1) if labels is None else np.asarray(labels)
    enough = embeddings.ndim == 2 and len(embeddings) >= MIN_CLIPS and embeddings.shape[1] >= 2
    if not enough or not np.isfinite(embeddings).all():
        raise ValueError(
            f"`embeddings` must be (N, D), finite, with N >= {MIN_CLIPS} and D >= 2, but got shape {embeddings.shape} "
            f"with {np.count_nonzero(~np.isfinite(embeddings))} values that are not finite."
        )
    points, method, axis_names = _project(embeddings)
    figure = new_figure(5, 3.6)
    axes = figure.subplots()
    for label in np.unique(labels):
        rows = points[labels == label]
        has_label = label >= 0
        axes.scatter(
            rows[:, 0],
            rows[:, 1],
            s=26 if has_label else 10,
            color=colormaps["tab10"](label % 10) if has_label else "0.6",
            marker=MARKERS[label % len(MARKERS)] if has_label else "o",
            linewidth=0.4,
            edgecolor="white",
            label=f"{f'class {label}' if has_label else 'no label'} (n = {len(rows)})",
        )
    axes.set_title(f"{method} of {len(points)} clip embeddings", fontsize=9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(axis_names[0], fontsize=8)
    axes.set_ylabel(axis_names[1], fontsize=8)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, path)
    return figure


def _project(embeddings: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    """Points ``(N, 2)``, the name of the method, and those of the axes."""
    variance = embeddings.var(axis=0, ddof=1).sum()
    if len(embeddings) < MIN_TSNE_CLIPS or variance == 0:
        with np.errstate(invalid="ignore"):  # scikit-learn divides by the variance, which a collapsed network lacks
            pca = PCA(n_components=2, svd_solver="full").fit(embeddings)
        shares = (pca.explained_variance_ / (variance or 1)).tolist()
        names = [f"component {number} ({share:.0%} of variance)" for number, share in enumerate(shares, start=1)]
        return pca.transform(embeddings), "PCA", names
    perplexity = min(30.0, len(embeddings) / 4)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(embeddings)
    return points, f"t-SNE (perplexity {perplexity:g})", ["", ""]
