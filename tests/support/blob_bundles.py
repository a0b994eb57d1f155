# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""A video of a red ellipse, and bundles that find it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import blob_networks
import numpy as np
import torch
from PIL import Image, ImageDraw

from endofm_monai.formats import write_video

ROOT = Path(__file__).parents[2]

HEIGHT, WIDTH, FRAMES, STEP = 72, 96, 11, 3
NETWORKS = {"segmentation": "BlobSegmenter", "detection": "BlobDetector", "classification": "BlobClassifier"}
SEGMENTATION, DETECTION, CLASSIFICATION = (f"endofm_polyp_{task}" for task in NETWORKS)
ANY_TASK: dict[str, Any] = {"device": "$torch.device('cpu')", "num_workers": 0}
TASK: dict[str, dict[str, Any]] = {
    "segmentation": {"frame_size": 96, "window": 4, "stride": 2},
    "detection": {"frame_size": [HEIGHT, WIDTH], "class_names": ["polyp"], "window": 3},
    "classification": {"frame_size": 64, "num_frames": 2, "sampling_rate": 2},
}
TRAIN_ONLY: dict[str, dict[str, Any]] = {
    "segmentation": {"clips_per_video": 1, "num_frames": 2},
    "detection": {"test_supports": 2},
    "classification": {"batch_size": 4},
}


def draw(index: int) -> Image.Image:
    """A frame of the video: a red ellipse off the center, which goes to the left."""
    noise = np.random.default_rng(index).integers(80, 100, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse(box(index), fill=(220, 60, 60))
    return image


def box(index: int) -> tuple[int, int, int, int]:
    return 58 - STEP * index, 8, 88 - STEP * index, 30


def truth(index: int) -> np.ndarray:
    """Mask of the ellipse."""
    mask = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).ellipse(box(index), fill=1)
    return np.asarray(mask)


def make_bundle(folder: Path, task: str, **metadata: Any) -> Path:
    """The project's bundle for a task, with a network of :mod:`blob_networks`."""
    name = f"endofm_polyp_{task}"
    bundle = folder / name
    shutil.copytree(ROOT / "bundle" / name / "configs", bundle / "configs")
    network = {"_target_": f"blob_networks.{NETWORKS[task]}"}
    for kind, more in (("inference", {}), ("train", TRAIN_ONLY[task])):
        path = bundle / "configs" / f"{kind}.json"
        config = {**json.loads(path.read_text()), **ANY_TASK, **TASK[task], **more, "network_def": network}
        path.write_text(json.dumps(config))
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **metadata}))
    (bundle / "models").mkdir()
    torch.save(getattr(blob_networks, NETWORKS[task])().state_dict(), bundle / "models" / "model.pt")
    return bundle


def make_bundles(folder: Path) -> Path:
    for task in NETWORKS:
        make_bundle(folder, task)
    return folder


def make_studies(folder: Path) -> Path:
    """Frames by turns in PNG and JPEG, the same as a video, and an image with no number."""
    folder.mkdir()
    frames = [draw(index) for index in range(FRAMES)]
    for index, frame in enumerate(frames):
        frame.save(folder / f"case_{index:04d}.{'jpg' if index % 2 else 'png'}", quality=95)
    write_video(folder / "case.mp4", map(np.asarray, frames), fps=30, crf=10)
    frames[0].save(folder / "single.png")
    return folder
