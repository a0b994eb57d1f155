# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from bundles import BundleUnderTest

BUNDLE = BundleUnderTest("endofm_polyp_classification")
SMALL = {
    "network_def::embed_dim": 16,
    "network_def::depth": 2,
    "network_def::num_heads": 2,
    "device": "$torch.device('cpu')",
    "num_workers": 0,
    "frame_size": 32,
    "num_frames": 4,
    "sampling_rate": 6,  # 8 frames at 10 frames per second
}
SMALL_TRAINING = {**SMALL, "epochs": 2, "batch_size": 2}


def write_video(path: Path, brightness: int, frames: int = 20, size: tuple[int, int] = (40, 48)) -> None:
    random = np.random.default_rng(brightness)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = size
        for _ in range(frames):
            pixels = random.integers(0, 100, (*size, 3)) + brightness
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8))))
        container.mux(stream.encode())


def run_training(dataset_dir: Path | str, output: Path, *overlays: str, **overrides: Any) -> None:
    settings = {
        "dataset_dir": str(dataset_dir),
        "ckpt_dir": str(output / "models"),
        "output_dir": str(output / "eval"),
        **SMALL_TRAINING,
        **overrides,
    }
    BUNDLE.workflow("train", "train", *overlays, **settings).run()


def run_evaluation(dataset_dir: Path, weights: Path, output: Path, *overlays: str, **overrides: Any) -> dict:
    settings = {**SMALL, "dataset_dir": str(dataset_dir), "weights": str(weights), "output_dir": str(output)}
    settings["bootstrap_resamples"] = 20
    BUNDLE.workflow("train", "train", "evaluate", *overlays, **{**settings, **overrides}).run()
    return json.loads((output / "metrics.json").read_text())


def run_inference(dataset_dir: Path, weights: Path, output: Path, *overlays: str, **overrides: Any) -> None:
    settings = {**SMALL, "dataset_dir": str(dataset_dir), "weights": str(weights), "output_dir": str(output)}
    BUNDLE.workflow("infer", "inference", *overlays, **{**settings, **overrides}).run()


def result(output: Path, video: str) -> dict:
    return json.loads((output / "videos" / f"{video.removesuffix('.mp4').removesuffix('.png')}.json").read_text())
