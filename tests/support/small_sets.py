# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Small videos to prepare, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset

HEIGHT, WIDTH = 72, 96
DATASET = SourceDataset(
    name="test set", licence="none", labels={0: "even", 1: "odd"}, published={"videos": 6, "frames": 240}
)


def make_scene(seed: int, shift: float = 0.0) -> np.ndarray:
    """A smooth random texture ``(72, 96, 3)`` that moves by ``shift`` pixels, without repeating itself."""
    coarse = np.random.default_rng(seed).integers(30, 226, (10, 24, 3), dtype=np.uint8)
    wide = Image.fromarray(coarse).resize((3 * WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(wide.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0)))


def write_frames(
    path: Path, frames: Any, rate: int = 30, crf: int = 20, codec: str = "libx264", options: Any = None, title: str = ""
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.ascontiguousarray(frame) for frame in frames]
    options = {"crf": str(crf), "preset": "ultrafast", "g": "10"} if options is None else options
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def prepare(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Prepare the numbered videos in a folder in this process, small, and give the manifest."""
    paths = sorted(folder.glob("*.mp4"))
    sources = [SourceVideo(path.stem, path, labels={"label": int(path.stem) % 2}) for path in paths]
    size = {} if options.get("mode") == "index" else {"short_side": 48}
    prepare_dataset(DATASET, sources, folder, output, **{"workers": 1, "stats": False, **size, **options})
    return json.loads((output / "manifest.json").read_text())


def content(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
