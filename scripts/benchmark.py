# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Measure the backbone, the pre-training step and the reading of clips, as ratios to limits of the same machine.

Everything is measured in one run, on the CPU, next to the matrix multiplication or the plain decoding that bounds it,
since absolute times of shared machines say little. ``python scripts/benchmark.py`` runs all parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import av
import fire
import numpy as np
import psutil
import torch
from tqdm import tqdm

from endofm_monai.data import open_clip
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import weight_decay_groups
from endofm_monai.transforms import RandAugmentViews, RandLoadViews, ViewPlan

__all__ = ["Benchmark"]

FORWARD_TFLOP = 0.3917  # of ViT-B for 8 frames of 224x224: multiply-adds count twice
STEP_TFLOP = 6.294  # 3 times the student's forward on ten views, and the teacher's on two
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds_of(function: Callable[[], object], repeat: int) -> float:
    """Median time of a call, after one that warms up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def multiply_rate(dtype: torch.dtype) -> float:
    """TFLOP/s of a large matrix multiplication."""
    size = 2048
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    return 2 * size**3 / seconds_of(lambda: left @ right, 15) / 1e12


def next_to_limit(function: Callable[[], object], tflop: float, repeat: int) -> dict[str, float]:
    """Time of a computation, and its share of the fp32 multiplication rate measured before and after it."""
    before = multiply_rate(torch.float32)
    seconds = seconds_of(function, repeat)
    limit = (before + multiply_rate(torch.float32)) / 2
    return {"seconds": seconds, "multiply_tflops": limit, "share_of_multiply_rate": tflop / seconds / limit}


def make_step(precision: str, checkpointing: bool) -> Callable[[], None]:
    """A whole pre-training step of the published size on one clip."""
    torch.manual_seed(0)
    network = StudentTeacher(EndoFM(activation_checkpointing=checkpointing))
    loss = SpatialTemporalMatchingLoss()
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student), lr=1e-5)
    views = [torch.randn(1, 3, view.frames, view.size, view.size) for view in ViewPlan()]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            student, teacher = network(views)
        loss(student, teacher).backward()
        optimizer.step()
        network.update_teacher()

    return step


class Benchmark:
    """Each public method is a part that can be run alone, for example ``python scripts/benchmark.py reading``."""

    def forward(self, repeat: int = 5) -> dict[str, object]:
        """The ViT-B forward pass for 8 frames of 224x224 against the matrix-multiply rate."""
        backbone, clip = EndoFM().eval(), torch.randn(1, 3, 8, 224, 224)

        def run(precision: str) -> dict[str, float]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return next_to_limit(lambda: backbone(clip), FORWARD_TFLOP, repeat)

        result = {precision: run(precision) for precision in DTYPES}
        return {**result, "bf16_speedup": result["fp32"]["seconds"] / result["bf16"]["seconds"]}

    def step(self, repeat: int = 1) -> dict[str, object]:
        """The whole pre-training step, ViT-B with ten views of one clip, against the matrix-multiply rate."""
        result = {}
        for precision in DTYPES:
            result[precision] = next_to_limit(make_step(precision, checkpointing=False), STEP_TFLOP, repeat)
        return {**result, "bf16_speedup": result["fp32"]["seconds"] / result["bf16"]["seconds"]}

    def memory(self) -> dict[str, float]:
        """Peak memory in GiB of the step with and without activation checkpointing, each in a process of its own."""
        return {
            f"checkpointing_{checkpointing}".lower(): float(
                subprocess.run(
                    [sys.executable, __file__, "peak_of_step", f"--checkpointing={checkpointing}"],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for checkpointing in (False, True)
        }

    def peak_of_step(self, checkpointing: bool) -> float:
        """Peak memory in GiB of this process after two steps."""
        step = make_step("fp32", checkpointing)
        step()
        step()
        status = Path(f"/proc/{psutil.Process().pid}/status").read_text(encoding="utf-8")
        (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak) / 2**20

    def reading(self, frames: int = 300, repeat: int = 9) -> dict[str, float]:
        """Reading the frames of all views, and making the views, against plain PyAV decoding of the same window."""
        plan = ViewPlan()
        load, augment = RandLoadViews(plan), RandAugmentViews(plan)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            write_video(path, frames)
            window = round(load.window * 30)

            def decode() -> None:
                with av.open(str(path)) as container:
                    for number, frame in enumerate(container.decode(video=0)):
                        frame.to_ndarray(format="rgb24", threads=1)
                        if number == window:
                            break

            def read() -> tuple[torch.Tensor, list[torch.Tensor]]:
                return load.set_random_state(seed=0)(path)

            plain, reading = seconds_of(decode, repeat), seconds_of(read, repeat)
            clip, view_frames = read()
            making = seconds_of(lambda: augment.set_random_state(seed=0)(clip, view_frames), repeat)
            with open_clip(path) as reader:
                probing = seconds_of(reader.probe, repeat)
        return {
            "plain_decoding_seconds": plain,
            "reading_to_decoding": reading / plain,
            "views_to_decoding": making / plain,
            "probe_seconds": probing,
        }

    def startup(self) -> dict[str, float]:
        """Seconds that the import of the package takes in a new process."""
        command = [sys.executable, "-c", "import endofm_monai"]
        return {"import_seconds": seconds_of(lambda: subprocess.run(command, check=True), 3)}

    def all(self) -> None:
        """Every part, one after the other, each as JSON on the standard output as soon as it is measured."""
        print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__}))
        parts: dict[str, Callable[[], object]] = {
            "reading": self.reading,
            "startup": self.startup,
            "forward": self.forward,
            "step": self.step,
            "memory": self.memory,
        }
        for name, part in tqdm(parts.items(), unit="part"):
            print(json.dumps({name: part()}, indent=4), flush=True)


def write_video(path: Path, frames: int) -> None:
    """An H.264 video of 320x256 with moving texture and some noise."""
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (64, 80, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for number in range(frames):
            picture = texture[number // 2 : number // 2 + 256, number : number + 320]
            noise = random.integers(0, 8, picture.shape, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture // 2 + noise, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    fire.Fire(Benchmark() if len(sys.argv) > 1 else Benchmark().all)
