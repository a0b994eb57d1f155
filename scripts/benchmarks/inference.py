# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Whole runs of inference from a video file to the last result, to be compared between versions of the project.

It uses only configuration keys, and so runs with another version too: ``PYTHONPATH=OTHER python scripts/benchmark.py
inference``.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.measure import BUNDLES, moving_texture, open_bundle, seconds_of_call

from endofm_monai.apps.cvat.__main__ import annotate
from endofm_monai.formats import write_video

__all__ = ["run"]

TINY: dict[str, dict[str, Any]] = {
    "segmentation": {"preset": "tiny", "decoder": "simple", "frame_size": 96, "num_workers": 0},
    "detection": {"preset": "tiny", "class_names": ["polyp"], "frame_size": [96, 128]},
}


def run(frames: int = 300, size: tuple[int, int] = (256, 320), threads: int = 2, seed: int = 0) -> dict[str, float]:
    """Seconds of detection and segmentation with tiny random networks and all formats, and of ``cvat annotate``."""
    torch.set_num_threads(threads)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "videos", "video.mp4")
        write_video(video, moving_texture(frames, size), 30, crf=20)
        for task, settings in TINY.items():
            bundle = copy_bundle(task, Path(folder), {**settings, "dataset_dir": str(video.parent)}, seed)
            seconds[task] = seconds_of_call(
                lambda: open_bundle(bundle, "inference", kind="infer").run()  # noqa: B023
            )
        bundle, output = Path(folder, "endofm_polyp_segmentation"), str(Path(folder, "annotations.xml"))
        seconds["cvat_annotate_segmentation"] = seconds_of_call(lambda: annotate(str(video), str(bundle), output))
    return {name: round(value, 2) for name, value in seconds.items()}


def copy_bundle(task: str, folder: Path, settings: dict[str, Any], seed: int) -> Path:
    """Copy a bundle with other settings of its inference, and random weights for them."""
    bundle = folder / f"endofm_polyp_{task}"
    shutil.copytree(BUNDLES / bundle.name / "configs", bundle / "configs")
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    torch.manual_seed(seed)
    (bundle / "models").mkdir()
    workflow = open_bundle(bundle, "inference", kind="infer")
    torch.save(workflow.parser.get_parsed_content("network_def").state_dict(), bundle / "models" / "model.pt")
    return bundle
