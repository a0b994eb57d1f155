# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from endofm_monai.visualize.figure import new_figure, save_figure

__all__ = ["plot_confusion"]


def plot_confusion(matrices: Mapping[str, np.ndarray], class_names: Sequence[str], path: str | os.PathLike) -> Figure:
    """Draw confusion matrices side by side: counts, colored by the share of their true class.

    Args:
        matrices: by title, counts ``(C, C)`` with true classes in rows and predicted ones in columns.
        class_names: names of the classes.
        path: the picture to write, for example a ``.png``.

    Returns:
        the figure, as it is written.
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
    save_figure(figure, path)
    return figure
