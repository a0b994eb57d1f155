# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

__all__ = ["TINY", "TRIAL_INFERENCE", "TRIAL_TRAINING"]

TINY = {
    **{"preset": "tiny", "network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2},
    **{"frame_size": 32, "num_workers": 0},
}
WINDOW = {"decoder": "simple", "window": 2, "stride": 1}
BOXES = {"frame_size": [64, 96], "class_names": ["polyp"]}

TRIAL_INFERENCE: dict[str, dict[str, Any]] = {
    "endofm_pretraining": {**TINY, "num_frames": 2, "plot": False},
    "endofm_polyp_classification": {**TINY, "num_frames": 2, "sampling_rate": 1},
    "endofm_polyp_segmentation": {**TINY, **WINDOW},
    "endofm_polyp_detection": {**TINY, **BOXES, "num_supports": 2},
}
"""Settings with which a bundle's ``inference.json`` runs in a second: does it run, not how well."""

VIEWS = {"global_frames": [2, 4], "local_frames": [2, 2], "global_size": 32, "local_size": 16}
PROJECTION = {"num_prototypes": 16, "model::hidden_dim": 16, "model::bottleneck_dim": 8}
EPOCH = {"epochs": 1, "warmup_epochs": 0, "batch_size": 2}
TRIAL_TRAINING: dict[str, dict[str, Any]] = {
    "endofm_pretraining": {
        **{**TINY, **EPOCH, **PROJECTION, "num_frames": 2},
        **{f"views::{key}": value for key, value in VIEWS.items()},
    },
    "endofm_polyp_classification": {**TINY, **EPOCH, "num_frames": 2, "sampling_rate": 1},
    "endofm_polyp_segmentation": {**TINY, **EPOCH, **WINDOW, "num_frames": 2, "clips_per_video": 1},
    "endofm_polyp_detection": {**TINY, **EPOCH, **BOXES, "key_frame_interval": 4, "test_supports": 2},
}
"""Likewise for its ``train.json``."""
