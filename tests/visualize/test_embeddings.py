# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings

import numpy as np
import pytest

from endofm_monai.visualize import plot_embeddings


def embeddings_of(clips: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(clips, 6)) * [10, 1, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("clips", "title"),
    [
        (3, "PCA of 3 clip embeddings"),
        (49, "PCA of 49 clip embeddings"),
        (50, "t-SNE (perplexity 12.5) of 50 clip embeddings"),
        (200, "t-SNE (perplexity 30) of 200 clip embeddings"),
    ],
)
def test_the_title_says_the_method_and_the_picture_repeats(tmp_path, clips: int, title: str) -> None:
    for name in ("a.png", "b.png"):
        figure = plot_embeddings(embeddings_of(clips), None, tmp_path / name)
    assert figure.axes[0].get_title() == title
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pca_shows_the_components_of_most_variance(tmp_path) -> None:
    embeddings = embeddings_of(20)
    (axes,) = plot_embeddings(embeddings, None, tmp_path / "map.png").axes
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


@pytest.mark.parametrize("clips", [5, 60])
def test_a_collapsed_network_is_one_point(tmp_path, clips: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (axes,) = plot_embeddings(np.ones((clips, 4)), None, tmp_path / "map.png").axes
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
        plot_embeddings(embeddings, None, tmp_path / "map.png")
    assert not list(tmp_path.iterdir())
