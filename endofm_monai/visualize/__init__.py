# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.visualize.attention import plot_attention
from endofm_monai.visualize.boxes import draw_boxes
from endofm_monai.visualize.confusion import plot_confusion
from endofm_monai.visualize.embeddings import plot_embeddings
from endofm_monai.visualize.masks import overlay_mask, plot_masks
from endofm_monai.visualize.timeline import KeyFrame, plot_timeline
from endofm_monai.visualize.video import open_video, write_video
from endofm_monai.visualize.views import plot_views

__all__ = [
    "KeyFrame",
    "draw_boxes",
    "open_video",
    "overlay_mask",
    "plot_attention",
    "plot_confusion",
    "plot_embeddings",
    "plot_masks",
    "plot_timeline",
    "plot_views",
    "write_video",
]
