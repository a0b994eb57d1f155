# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["TRIAL_INFERENCE", "TRIAL_TRAINING", "make_trial_clips"]

NETWORK = {"preset": "tiny", "network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2}
SQUARE = {"frame_size": 32, "num_workers": 0}
WINDOW = {"decoder": "simple", "window": 2, "stride": 1}

TRIAL_INFERENCE: dict[str, dict[str, Any]] = {
    "endofm_pretraining": {**NETWORK, **SQUARE, "num_frames": 2, "plot": False},
    "endofm_polyp_classification": {**NETWORK, **SQUARE, "num_frames": 2, "sampling_rate": 1},
    "endofm_polyp_segmentation": {**NETWORK, **SQUARE, **WINDOW},
    "endofm_polyp_detection": {**NETWORK, "frame_size": [64, 96], "num_supports": 2},
}
"""Settings with which a bundle's ``inference.json`` runs in a second: does it run, not how well."""

TRIAL_TRAINING: dict[str, dict[str, Any]] = {
    "endofm_pretraining": {
        **NETWORK,
        **SQUARE,
        "num_frames": 2,
        "num_prototypes": 16,
        "student_teacher::hidden_dim": 16,
        "student_teacher::bottleneck_dim": 8,
        "views::global_frames": [2, 4],
        "views::local_frames": [2, 2],
        "views::global_size": 32,
        "views::local_size": 16,
    },
    "endofm_polyp_classification": {**NETWORK, **SQUARE, "num_frames": 2, "sampling_rate": 1},
    "endofm_polyp_segmentation": {**NETWORK, **SQUARE, **WINDOW, "num_frames": 2, "clips_per_video": 1},
    "endofm_polyp_detection": {
        **NETWORK,
        "frame_size": [64, 96],
        "num_workers": 0,
        "key_frame_interval": 4,
        "test_supports": 2,
    },
}
for settings in TRIAL_TRAINING.values():
    settings |= {"epochs": 1, "warmup_epochs": 0, "batch_size": 2}


def make_trial_clips(folder: str | os.PathLike, clips: int = 2, frames: int = 4) -> Path:
    """Write clips of dark frames, of which every second shows a bright square, with the labels of all tasks.

    Args:
        folder: where frames, masks and ``datalist.json`` go.
        clips: number of clips in each of the sections ``training``, ``validation`` and ``test``.
        frames: number of frames of a clip.

    Returns:
        the datalist.
    """
    folder = Path(folder)
    random = np.random.default_rng(0)
    datalist: dict[str, list[dict[str, Any]]] = {}
    for section in ("training", "validation", "test"):
        datalist[section] = []
        for number in range(clips):
            shown = number % 2
            item: dict[str, Any] = {"label": shown, "image": [], "mask": [], "box": [], "box_label": []}
            for frame in range(frames):
                left = 10 + 2 * frame
                mask = np.zeros((48, 64), np.uint8)
                mask[12:30, left : left + 22] = 255 * shown
                pixels = random.integers(0, 60, (48, 64, 3)) + 150 * (mask[..., None] > 0)
                name = f"{section}_{number}_{frame}.png"
                for key, array in (("image", pixels.astype(np.uint8)), ("mask", mask)):
                    (folder / key).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(folder / key / name)
                    item[key].append(f"{key}/{name}")
                item["box"].append([[left, 12, left + 22, 30]] * shown)
                item["box_label"].append([1] * shown)
            datalist[section].append(item)
    path = folder / "datalist.json"
    path.write_text(json.dumps(datalist), encoding="utf-8")
    return path
