# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from endofm_monai.visualize import plot_views

TEN_VIEWS = [(8, 24), (16, 24), *((frames, 12) for frames in (2, 2, 4, 4, 8, 8, 16, 16))]


def views_of(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Views whose frames are all of one gray, which tells the view and the frame."""
    views = []
    for number, (frames, size) in enumerate(shapes):
        gray = (10 * number + torch.arange(frames, dtype=torch.uint8)).view(1, frames, 1, 1)
        views.append(gray.expand(3, frames, size, size))
    return views


def test_ten_views_with_titles_and_frames(tmp_path) -> None:
    figure = plot_views(views_of(TEN_VIEWS), tmp_path / "views.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == [
        "Global view 1: 8 frames, 24\u00d724 pixels",
        "Global view 2: 16 frames (8 shown), 24\u00d724 pixels",
        "Local view 1: 2 frames, 12\u00d712 pixels",
    ]
    assert titles[-1] == "Local view 8: 16 frames (8 shown), 12\u00d712 pixels"
    for number, (axes, (frames, size)) in enumerate(zip(figure.axes, TEN_VIEWS, strict=True)):
        strip = axes.images[0].get_array()
        assert strip.shape[0] == size
        starts = np.arange(min(frames, 8)) * (size + size // 24)
        shown = (strip[0, starts, 0] * 255).round().astype(int).tolist()
        last = frames - 1
        assert [shown[0], shown[-1]] == [10 * number, 10 * number + last]
        assert np.all(strip[:, starts[-1] + size :] == 1)  # white where there are no more frames
    written = imread(tmp_path / "views.png")
    assert written.shape[:2] == (figure.bbox.height, figure.bbox.width)
    assert written[..., :3].std() > 0.1


@pytest.mark.parametrize(("shapes", "global_views"), [([(1, 8)], 1), ([(2, 8)] * 4, 1), ([(3, 8)] * 3, 3)])
def test_any_plan(tmp_path, shapes, global_views: int) -> None:
    figure = plot_views(views_of(shapes), tmp_path / "views.png", global_views)
    names = [axes.get_title(loc="left").split(":")[0] for axes in figure.axes]
    assert names == [f"Global view {n + 1}" for n in range(global_views)] + [
        f"Local view {n + 1}" for n in range(len(shapes) - global_views)
    ]
