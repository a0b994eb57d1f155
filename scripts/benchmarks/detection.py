# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp detection: what a frame costs in streaming, and how well the sample data are learned."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import seconds_of, seconds_of_call
from monai.bundle import ConfigWorkflow

from endofm_monai.data import load_datalist
from endofm_monai.inferers.close_up import CloseUp
from endofm_monai.inferers.detection import StreamingDetector, read_blocks
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.transforms import FitClip

__all__ = ["Detection"]

BUNDLE = Path(__file__).parents[2] / "bundle" / "endofm_polyp_detection"


class Detection:
    """Benchmarks of the detector.

    Args:
        data: folder of the sample data, see ``datasets/sample``.
    """

    def __init__(self, data: str = "datasets/sample/data") -> None:
        self.data = data

    @torch.no_grad()
    def streaming(
        self,
        preset: str = "small",
        size: tuple[int, int] = (256, 320),
        mode: str = "offline",
        repeat: int = 10,
        device: str = "cpu",
    ) -> dict[str, Any]:
        """Milliseconds a frame in streaming with 10 supports, in all and by stage, and the bytes that are kept.

        ``encoding_supports_again`` is what a frame costs when its supports are encoded for it, measured in turn with
        the streaming; ``times_cheaper`` is the median ratio of the two.
        """
        network = EndoFMDetector.from_preset(preset, num_classes=1).to(device).eval()
        detector = StreamingDetector(network, FitClip(size), mode=mode)
        video = load_datalist(self.data, f"{self.data}/datalist.json", "test")[0]["image"]
        frames = list(read_blocks(video, 1))
        for frame in frames[:20]:  # until the window is full
            detector.push(frame, video)

        streaming, again = [], []
        for index in range(20, 20 + repeat):
            streaming.append(seconds_of_call(lambda: detector.push(frames[index], video)))  # noqa: B023
            again.append(seconds_of_call(lambda: encode_supports(detector, frames[index - 10 : index + 1])))  # noqa: B023

        clip = detector.normalize(detector.fit(torch.cat(frames[:11], dim=1).to(device))).unsqueeze(0)
        levels, pred = network.encode(clip), network(clip)
        polyp = {"box": torch.tensor([[20.0, 20, 60, 60]]), "label": torch.ones(1), "label_scores": torch.ones(1)}
        polyp = {name: value.to(device) for name, value in polyp.items()}
        stages = {
            "decode": seconds_of(lambda: list(read_blocks(video, 1)), 3) / len(frames),
            "resize": seconds_of(lambda: detector.normalize(detector.fit(frames[0].to(device))), repeat),
            "encode": seconds_of(lambda: network.encode(clip[:, :, :1]), repeat),
            "head": seconds_of(lambda: network.head.refine(levels), repeat),
            "post_processing": seconds_of(lambda: detector.select(pred), repeat),
            "close_up_of_one_polyp": seconds_of(lambda: CloseUp(detector, 0.5)(frames[0], polyp), repeat),
        }
        return {
            "milliseconds": {name: round(1000 * seconds, 2) for name, seconds in stages.items()},
            "streaming": round(1000 * _median(streaming), 1),
            "encoding_supports_again": round(1000 * _median(again), 1),
            "times_cheaper": round(_median([a / s for a, s in zip(again, streaming, strict=True)]), 2),
            "bytes_a_frame": sum(part.nbytes for level in levels for part in level) // clip.shape[2],
            "bytes_kept": detector.memory_bytes,
        }

    def sample(self, **overrides: Any) -> dict[str, Any]:
        """Train on the sample data with the ``tiny`` overlay; minutes, and scores on their test videos."""
        with tempfile.TemporaryDirectory() as folder:
            settings = {"dataset_dir": self.data, "ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/eval"}
            start = time.perf_counter()
            _run("train", "tiny", **settings, **overrides)
            minutes = (time.perf_counter() - start) / 60
            weights = {"weights": f"{folder}/models/model.pt", "formats": [], "resamples": 0}
            _run("train", "tiny", "evaluate", **settings, **overrides, **weights)
            scores = json.loads(Path(folder, "eval", "detection.json").read_text(encoding="utf-8"))["scores"]
        return {"training_minutes": round(minutes, 1), **{name: scores[name] for name in ("ap50", "ap", "box_f1")}}


def encode_supports(detector: StreamingDetector, frames: list[torch.Tensor]) -> None:
    """Detect in the last of the frames, all of them encoded for it."""
    key, *supports = detector.encode(torch.cat(frames, dim=1))
    detector.refine(key, supports, frames[-1].shape[-2:])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _run(*configs: str, **overrides: Any) -> None:
    files = [str(BUNDLE / "configs" / f"{name}.json") for name in configs]
    workflow = ConfigWorkflow(files, workflow_type="train", bundle_root=str(BUNDLE), **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
