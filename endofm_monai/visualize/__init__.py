# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.visualize.attention import plot_attention
from endofm_monai.visualize.embeddings import plot_embeddings
from endofm_monai.visualize.views import plot_views

__all__ = ["plot_attention", "plot_embeddings", "plot_views"]
