# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from endofm_monai.visualize import KeyFrame, plot_confusion, plot_timeline


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
