# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""A video of a red ellipse, bundles that find it, and the app that serves them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import blob_networks
import numpy as np
import torch
from fastapi.testclient import TestClient
from monailabel.app import app
from monailabel.config import settings
from monailabel.interfaces.utils.app import clear_cache
from PIL import Image, ImageDraw

from endofm_monai.formats.video import write_video

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
APP = ROOT / "endofm_monai" / "apps" / "monai_label"

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


def make_studies(folder: Path) -> Path:
    """Frames by turns in PNG and JPEG, the same as a video, and an image with no number."""
    folder.mkdir()
    frames = [draw(index) for index in range(FRAMES)]
    for index, frame in enumerate(frames):
        frame.save(folder / f"case_{index:04d}.{'jpg' if index % 2 else 'png'}", quality=95)
    write_video(folder / "case.mp4", map(np.asarray, frames), fps=30, crf=10)
    frames[0].save(folder / "single.png")
    return folder


def start_app(studies: Path, **conf: str) -> TestClient:
    settings.MONAI_LABEL_APP_DIR = str(APP)
    settings.MONAI_LABEL_STUDIES = str(studies)
    settings.MONAI_LABEL_APP_CONF = conf
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    clear_cache()
    client = TestClient(app)  # not as a context: that would start threads that never end
    assert client.get("/info/").status_code == 200
    return client


def infer(client: Any, model: str, result: str = "json", image: str = "", file: Any = None, **params: Any) -> Any:
    files = None if file is None else {"file": file}
    return client.post(
        f"/infer/{model}", params={"image": image, "output": result}, data={"params": json.dumps(params)}, files=files
    )


def mask(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float((found & expected).sum() / (found | expected).sum())
