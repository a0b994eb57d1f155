# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures: what starts with ``plot_`` writes one to a path, e.g. a ``.png``, and gives its figure."""

from endofm_monai.visualize.charts import KeyFrame, plot_confusion, plot_curves, plot_embeddings, plot_timeline
from endofm_monai.visualize.figure import draw_boxes, overlay_mask, plot_attention, plot_masks, plot_views

__all__ = [
    "KeyFrame", "draw_boxes", "overlay_mask", "plot_attention", "plot_confusion", "plot_curves", "plot_embeddings",
    "plot_masks", "plot_timeline", "plot_views",
]  # fmt: skip
