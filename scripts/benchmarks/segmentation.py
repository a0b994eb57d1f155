# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp segmentation: speed next to its limit, memory of a training step, and how the sample data are learned."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import next_to_limit, peak_memory
from monai.bundle import ConfigWorkflow
from monai.losses import DiceCELoss
from torch.utils.flop_counter import FlopCounterMode

from endofm_monai.networks.nets import EndoFMSegmenter

__all__ = ["Segmentation"]

BUNDLE = Path(__file__).parents[2] / "bundle" / "endofm_polyp_segmentation"


class Segmentation:
    """Each public method is a part that can be run alone."""

    @torch.inference_mode()
    def forward(self, frames: int = 8, repeat: int = 3) -> dict[str, dict[str, float]]:
        """The forward pass at base size for frames of 224x224 against the matrix-multiply rate, for both decoders."""
        result = {}
        for decoder in ("transunet", "simple"):
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                EndoFMSegmenter.from_preset("base", decoder=decoder).eval()(torch.empty(1, 3, frames, 224, 224))
            network = EndoFMSegmenter.from_preset("base", decoder=decoder).eval()
            clip = torch.randn(1, 3, frames, 224, 224)
            tflop = counter.get_total_flops() / 1e12
            result[decoder] = {"tflop": tflop, **next_to_limit(lambda: network(clip), tflop, repeat)}  # noqa: B023
        return result

    def memory(self, frames: int = 25) -> dict[str, float]:
        """Peak memory in GiB of a training step on a clip, with and without checkpointing, each in its own process."""
        benchmark = Path(__file__).parents[1] / "benchmark.py"
        peaks = {}
        for checkpointing in (True, False):
            options = [f"--frames={frames}", f"--checkpointing={checkpointing}"]
            command = [sys.executable, str(benchmark), "segmentation", "peak_of_step", *options]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[f"checkpointing_{checkpointing}".lower()] = float(output)
        return peaks

    def peak_of_step(self, frames: int, checkpointing: bool) -> float:
        """Peak memory in GiB of this process after two training steps of the published network with AdamW."""
        network = EndoFMSegmenter.from_preset("base", activation_checkpointing=checkpointing)
        loss_function = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True)
        optimizer = torch.optim.AdamW(network.parameters())
        clip = torch.randn(1, 3, frames, 224, 224)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            loss_function(network(clip), (clip[:, :1] > 1).float()).backward()
            optimizer.step()
        return peak_memory()

    def sample(self, data: str = "datasets/sample/data", **overrides: Any) -> dict[str, float]:
        """Train on the sample data with the ``tiny`` overlay; minutes, and Dice of their test videos."""
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "dataset_dir": data,
                "ckpt_dir": f"{folder}/models",
                "output_dir": f"{folder}/eval",
                **overrides,
            }
            start = time.perf_counter()
            run("train", "tiny", **settings)
            minutes = (time.perf_counter() - start) / 60
            run("train", "tiny", "evaluate", **settings, weights=f"{folder}/models/model.pt")
            report = json.loads(Path(folder, "eval", "segmentation.json").read_text(encoding="utf-8"))["clean"]
        dice = {f"{name}_dice": report[name]["dice"]["value"] for name in ("per_frame", "per_sequence", "pooled")}
        return {"training_minutes": round(minutes, 1), **dice}


def run(*configs: str, **overrides: Any) -> None:
    """Run the bundle with these configs."""
    files = [str(BUNDLE / "configs" / f"{name}.json") for name in configs]
    workflow = ConfigWorkflow(files, workflow_type="train", bundle_root=str(BUNDLE), **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
