# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Times as medians, and as shares of what the same machine can do at best in the same minutes; what all parts share."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import endofm_monai
from endofm_monai.utils import read_json

BUNDLES = Path(endofm_monai.__file__).parents[1] / "bundle"
DATA = "datasets/sample/data"


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of_call(function: Callable[[], object]) -> float:
    """Time of one call, to the end of what it started on a GPU."""
    start = _now()
    function()
    return _now() - start


def seconds_of(function: Callable[[], object], repeat: int) -> float:
    """Median time of a call, after one that warms up."""
    function()
    return median(seconds_of_call(function) for _ in range(repeat))


def tflop_of(function: Callable[[], object]) -> float:
    """The floating-point operations of a call, in 10^12: multiply-adds count twice."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows no fused one of the CPU
        function()
    return counter.get_total_flops() / 1e12


def multiply_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """TFLOP/s of a large matrix multiplication."""
    size = 2048 if device == "cpu" else 8192
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, 15) / 1e12


def next_to_limit(
    function: Callable[[], object], tflop: float, repeat: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, float]:
    """Median time of a computation, and median share of the multiplication rate measured before and after each call."""
    function()
    rates, times = [multiply_rate(dtype, device)], []
    for _ in range(repeat):
        times.append(seconds_of_call(function))
        rates.append(multiply_rate(dtype, device))
    shares = [tflop / seconds / ((rates[i] + rates[i + 1]) / 2) for i, seconds in enumerate(times)]
    return {"seconds": median(times), "multiply_tflops": median(rates), "share_of_multiply_rate": median(shares)}


def training_step(
    network: nn.Module, weights: Any, clip: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], None]:
    """A step of a training on one clip, with AdamW; ``loss`` takes the logits."""
    optimizer = torch.optim.AdamW(weights)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(clip)).backward()
        optimizer.step()

    return step


def peak_memory(step: Callable[[], None]) -> float:
    """Peak memory of this process after two steps, in GiB, as Linux states it."""
    step()
    step()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def peak_in_a_process(part: str, **options: Any) -> float:
    """What a part's ``peak_of_step`` gives in a process of its own."""
    command = [sys.executable, str(Path(__file__).parents[1] / "benchmark.py"), part, "peak_of_step"]
    command += [f"--{name}={value}" for name, value in options.items()]
    return float(subprocess.check_output(command, text=True))


def open_bundle(bundle: str | Path, *configs: str, kind: str = "train", **settings: Any) -> ConfigWorkflow:
    """Open configs of a bundle of the checkout, or of the one in another folder, ready to run."""
    root = BUNDLES / bundle
    files = [f"{root}/configs/{name}.json" for name in configs]
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(root), **settings)
    workflow.initialize()
    return workflow


def learn(task: str, report: str, configs: tuple[str, ...], judging: dict[str, Any], **settings: Any) -> Any:
    """Train by configs and evaluate the best weights on the test part: the minutes of training, and a report."""
    bundle = f"endofm_polyp_{task}"
    with tempfile.TemporaryDirectory() as folder:
        settings = {**settings, "ckpt_dir": f"{folder}/models", "output_dir": f"{folder}/eval"}
        minutes = seconds_of_call(open_bundle(bundle, *configs, **settings).run) / 60
        judging = {**judging, "weights": f"{folder}/models/model.pt"}
        open_bundle(bundle, "train", "tiny", "evaluate", **settings, **judging).run()
        return {"training_minutes": round(minutes, 1)}, read_json(Path(folder, "eval", report), dict)


def moving_texture(frames: int, size: tuple[int, int], seed: int = 0) -> Iterator[np.ndarray]:
    """Frames ``(H, W, 3)`` of a smooth random texture with some noise, which moves."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (24, 48, 3), dtype=np.uint8))
    still = np.asarray(coarse.resize((2 * size[1], size[0]), Image.Resampling.BICUBIC))
    still = (still + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8)
    for number in range(frames):
        yield np.roll(still, -3 * number, axis=1)[:, : size[1]]
