# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import ConfusionMatrixDisplay

from endofm_monai.utils import PathLike
from endofm_monai.visualize.figure import attention_heat, new_figure, rgb_frames, save_figure, show_heat


def plot_confusion(matrices: Mapping[str, np.ndarray], class_names: Sequence[str], path: PathLike) -> Figure:
    """Draw confusion matrices side by side, each below its title: counts, colored by the share of their true class.

    They are ``(C, C)``, with true classes in rows and predicted ones in columns.
    """
    side = 1.4 + 0.5 * len(class_names)
    figure = new_figure(side * len(matrices), side)
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        display = ConfusionMatrixDisplay(shares, display_labels=class_names)
        display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=False, im_kw={"vmin": 0, "vmax": 1})
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, int(matrix[row, column]), ha="center", va="center", color=color, fontsize=8)
        axes.set_title(f"{title} (n = {int(matrix.sum())})", fontsize=8)
        axes.set_xlabel("predicted", fontsize=8)
        axes.set_ylabel("true", fontsize=8)
        axes.tick_params(labelsize=7)
    return save_figure(figure, path)


class KeyFrame(NamedTuple):
    """A frame to show: when it is in the video, its pixels, and the attention in it."""

    seconds: float
    frame: torch.Tensor  # (3, H, W), uint8, or normalized as for pre-training
    attention: torch.Tensor  # (heads, 1 + N, 1 + N)


def plot_timeline(
    spans: Sequence[tuple[float, float]],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    key_frames: Sequence[KeyFrame],
    title: str,
    path: PathLike,
) -> Figure:
    """Draw what a video shows when: class probabilities over time, and below them key frames, without and with heat.

    The probabilities ``(N, C)`` are those of windows, whose ``spans`` are beginning and end in seconds, in order. At
    least one key frame is drawn and marked in the curves; the heat is an :func:`attention_heat`.
    """
    figure = new_figure(7.0, 5.6)
    grid = figure.add_gridspec(3, max(len(key_frames), 3), height_ratios=[1.1, 1, 1])
    curves = figure.add_subplot(grid[0, :])
    edges = [spans[0][0], *(begin for begin, _ in spans[1:]), spans[-1][1]]  # a later window wins where two overlap
    for name, values in zip(class_names, probabilities.T, strict=True):
        curves.stairs(values, edges, baseline=None, label=name, linewidth=1.5)
    for key_frame in key_frames:
        curves.axvline(key_frame.seconds, color="0.6", linewidth=0.8, linestyle=":")
    curves.set(ylim=(-0.03, 1.03), xlim=(edges[0], max(edges[-1], edges[0] + 1e-3)))
    curves.set_xlabel("seconds", fontsize=7)
    curves.set_ylabel("probability", fontsize=7)
    curves.set_title(title, fontsize=8, loc="left")
    curves.tick_params(labelsize=7)
    curves.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    for column, (seconds, frame, attention) in enumerate(key_frames):
        heat = attention_heat(attention[None], frame[:, None])[0]
        plain, heated = (figure.add_subplot(grid[row, column]) for row in (1, 2))
        show_heat(plain, heated, rgb_frames(frame[:, None])[0], heat, heat)
        plain.set_title(f"{seconds:.1f} s", fontsize=8, pad=3)
    return save_figure(figure, path)


def plot_curves(curves: Mapping[str, Mapping[int, float]], limits: Mapping[str, float], path: PathLike) -> Figure:
    """Draw a panel for each series of values by epoch, if there are some, with a dotted line at its limit, if any."""
    curves = {name: values for name, values in curves.items() if values}
    columns, rows = min(len(curves), 3), math.ceil(len(curves) / 3)
    figure = new_figure(2.4 * columns, 1.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (name, values), axes in zip(curves.items(), panels, strict=False):
        axes.plot(list(values), list(values.values()), marker="." if len(values) < 20 else "", linewidth=1.2)
        if name in limits:
            axes.axhline(limits[name], color="0.4", linewidth=0.8, linestyle=":")
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=6)
    for axes in panels:  # that are left
        axes.set_axis_off()
    return save_figure(figure, path)


MIN_CLIPS = 3  # two points always lie on a line
MIN_TSNE_CLIPS = 50  # t-SNE finds groups in any few points
MARKERS = "osD^vP*X<>"


def plot_embeddings(embeddings: ArrayLike, labels: ArrayLike, path: PathLike) -> Figure:
    """Draw clip embeddings ``(N, D)`` in the plane, colored by label, a class index or negative for none.

    Below 50 clips the plane is that of two principal components, else a t-SNE map: the same picture each time.
    """
    embeddings, labels = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    not_finite = np.count_nonzero(~np.isfinite(embeddings))
    if embeddings.ndim != 2 or len(embeddings) < MIN_CLIPS or embeddings.shape[1] < 2 or not_finite:
        found = f"shape {embeddings.shape} with {not_finite} values that are not finite"
        raise ValueError(f"`embeddings` must be (N, D), finite, with N >= {MIN_CLIPS} and D >= 2, but got {found}.")
    points, method, axis_names = _project(embeddings)
    figure = new_figure(5, 3.6)
    axes = figure.subplots()
    for label in np.unique(labels):
        rows = points[labels == label]
        name, size, color, marker = "no label", 10, "0.6", "o"
        if label >= 0:
            name, size, color = f"class {label}", 26, colormaps["tab10"](label % 10)  # whatever style a user has set
            marker = MARKERS[label % len(MARKERS)]
        name = f"{name} (n = {len(rows)})"
        x, y = rows.T
        axes.scatter(x, y, s=size, color=color, marker=marker, linewidth=0.4, edgecolor="white", label=name)
    axes.set_title(f"{method} of {len(points)} clip embeddings", fontsize=9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(axis_names[0], fontsize=8)
    axes.set_ylabel(axis_names[1], fontsize=8)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return save_figure(figure, path)


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
