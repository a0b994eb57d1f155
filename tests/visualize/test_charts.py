# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from matplotlib import cycler, rc_context
from matplotlib.image import imread

from endofm_monai.visualize import KeyFrame, plot_confusion, plot_curves, plot_embeddings, plot_timeline


def test_confusion_shows_every_count(tmp_path):
    matrices = {"video": np.array([[7, 1], [2, 90]]), "clip": np.array([[0, 0], [3, 4]])}
    figure = plot_confusion(matrices, ["normal", "abnormal"], tmp_path / "confusion.png")
    assert [axes.get_title() for axes in figure.axes] == ["video (n = 100)", "clip (n = 7)"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["7", "1", "2", "90"]
    assert figure.axes[0].images[0].get_array().tolist() == [[7 / 8, 1 / 8], [2 / 92, 90 / 92]]
    assert imread(tmp_path / "confusion.png").shape[1] > 300


def test_timeline_shows_curves_and_key_frames(tmp_path):
    attention = torch.full((2, 7, 7), 1 / 7)
    attention[:, 0] = torch.tensor([0.0, 0, 0, 1, 0, 0, 0])  # the class token looks at the third of 2x3 patches
    frames = [KeyFrame(seconds, torch.zeros(3, 32, 48, dtype=torch.uint8), attention) for seconds in (1.0, 5.0)]
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    spans = [(0.0, 2.0), (2.0, 4.0), (3.5, 6.0)]
    path = tmp_path / "a" / "timeline.png"
    figure = plot_timeline(spans, probabilities, ["normal", "abnormal"], frames, "a.mp4", path)
    curves, *pictures = figure.axes
    for values, patch in zip(probabilities.T, curves.patches, strict=True):
        assert patch.get_data().values.tolist() == values.tolist()
        assert patch.get_data().edges.tolist() == [0.0, 2.0, 3.5, 6.0]
    assert [line.get_xdata()[0] for line in curves.lines] == [1.0, 5.0]
    assert [axes.get_title() for axes in pictures[::2]] == ["1.0 s", "5.0 s"]
    heat = pictures[1].images[1].get_array()
    assert np.unravel_index(heat.argmax(), heat.shape) == (0, 2)
    assert heat.max() == pytest.approx(7.0)
    assert imread(path).shape[0] > 500


def test_curves_have_a_panel_each_and_none_is_left_empty(tmp_path):
    curves = {name: {5: 3.0, 6: 2.0, 8: 1.0} for name in ("loss", "lr", "spread", "effective_rank")}
    figure = plot_curves({**curves, "gradient norm": {}}, {"loss": 2.5}, tmp_path / "curves.png")
    assert [axes.get_title() for axes in figure.axes if axes.axison] == ["loss", "lr", "spread", "effective rank"]
    assert len(figure.axes[0].lines) == 2  # with the limit
    assert len(figure.axes[1].lines) == 1
    assert figure.axes[1].lines[0].get_xydata().tolist() == [[5, 3], [6, 2], [8, 1]]


def embeddings_of(clips: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(clips, 6)) * [10, 1, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("clips", "title"),
    [
        (3, "PCA of 3 clip embeddings"),
        (49, "PCA of 49 clip embeddings"),
        (50, "t-SNE (perplexity 12.5) of 50 clip embeddings"),
        (120, "t-SNE (perplexity 30) of 120 clip embeddings"),
    ],
)
def test_the_title_says_the_method_and_the_picture_repeats(tmp_path, clips: int, title: str) -> None:
    for name in ("a.png", "b.png"):
        figure = plot_embeddings(embeddings_of(clips), [-1] * clips, tmp_path / name)
    assert figure.axes[0].get_title() == title
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pca_shows_the_components_of_most_variance(tmp_path) -> None:
    embeddings = embeddings_of(20)
    (axes,) = plot_embeddings(embeddings, [-1] * 20, tmp_path / "map.png").axes
    points = np.asarray(axes.collections[0].get_offsets())
    assert abs(np.corrcoef(points[:, 0], embeddings[:, 0])[0, 1]) > 0.99
    assert axes.get_xlabel() == f"component 1 ({points[:, 0].var() / embeddings.var(axis=0).sum():.0%} of variance)"


def test_classes_have_their_points_and_a_legend(tmp_path) -> None:
    labels = np.array([0, 1, 1, -1, 1, 12])
    figure = plot_embeddings(embeddings_of(6), labels, tmp_path / "map.png")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["no label (n = 1)", "class 0 (n = 1)", "class 1 (n = 3)", "class 12 (n = 1)"]
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == [1, 1, 3, 1]
    colors = {tuple(points.get_facecolor()[0]) for points in figure.axes[0].collections}
    assert len(colors) == 4


def test_classes_keep_their_colors_in_a_style_of_few_colors(tmp_path) -> None:
    with rc_context({"axes.prop_cycle": cycler(color=["black", "gray"])}):
        figure = plot_embeddings(embeddings_of(6), np.arange(6), tmp_path / "map.png")
    assert len({tuple(points.get_facecolor()[0]) for points in figure.axes[0].collections}) == 6


@pytest.mark.parametrize("clips", [5, 60])
def test_a_collapsed_network_is_one_point(tmp_path, clips: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (axes,) = plot_embeddings(np.ones((clips, 4)), [-1] * clips, tmp_path / "map.png").axes
    assert np.ptp(axes.collections[0].get_offsets(), axis=0).max() == 0
    assert axes.get_xlabel() == "component 1 (0% of variance)"


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((2, 4)), r"N >= 3 .* shape \(2, 4\)"),
        (np.ones((5, 1)), r"D >= 2, but got shape \(5, 1\)"),
        (np.full((4, 2), np.nan), "8 values that are not finite"),
    ],
)
def test_bad_embeddings(tmp_path, embeddings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_embeddings(embeddings, [-1] * len(embeddings), tmp_path / "map.png")
    assert not list(tmp_path.iterdir())
