# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


"""The backbone, the pre-training step, the reading of clips and the start of a training."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from benchmarks.timing import next_to_limit, peak_memory, seconds_of

from endofm_monai.data import open_clip
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import weight_decay_groups
from endofm_monai.transforms import LoadClipd, RandAugmentViews, ViewPlan

__all__ = ["Pretraining"]

FORWARD_TFLOP = 0.3917  # of ViT-B for 8 frames of 224x224: multiply-adds count twice
STEP_TFLOP = 6.294  # 3 times the student's forward on ten views, and the teacher's on two
CONFIGS = Path(__file__).parents[2] / "bundle/endofm_pretraining/configs"
SETTINGS = {
    "fp32": (torch.float32, False),
    "fp32_compiled": (torch.float32, True),
    "bf16": (torch.bfloat16, False),
    "bf16_compiled": (torch.bfloat16, True),
}


def compile_blocks(network: torch.nn.Module) -> None:
    """Compile the transformer blocks, as the trainer's ``compile`` does."""
    for name, module in network.named_modules():
        if name.rsplit(".", 2)[-2:-1] == ["blocks"]:
            module.compile()


def make_step(
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    device: str = "cpu",
    clips: int = 1,
    checkpointing: bool = False,
) -> Callable[[], None]:
    """A whole pre-training step of the published size."""
    torch.manual_seed(0)
    with torch.device(device):
        network = StudentTeacher(EndoFM(activation_checkpointing=checkpointing))
        loss = SpatialTemporalMatchingLoss()
        views = [torch.randn(clips, 3, view.frames, view.size, view.size) for view in ViewPlan()]
    if compiled:
        compile_blocks(network)
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            student, teacher = network(views)
        loss(student, teacher).backward()
        optimizer.step()
        network.update_teacher()

    return step


def compare(
    make: Callable[[torch.dtype, bool], Callable], tflop: float, repeat: int, settings: list[str] | None, device: str
) -> dict:
    """Each setting's time next to its limit, and next to the first setting."""
    result: dict[str, dict[str, float]] = {}
    for name in settings or list(SETTINGS):
        dtype, compiled = SETTINGS[name]
        result[name] = next_to_limit(make(dtype, compiled), tflop, repeat, dtype, device)
        result[name]["speed_to_first"] = next(iter(result.values()))["seconds"] / result[name]["seconds"]
    return result


class Pretraining:
    """Each public method is a part that can be run alone."""

    def forward(
        self, repeat: int = 5, settings: list[str] | None = None, device: str = "cpu", clips: int = 1
    ) -> dict[str, object]:
        """The ViT-B forward pass for clips of 8 frames of 224x224 against the matrix-multiply rate."""
        clip = torch.randn(clips, 3, 8, 224, 224, device=device)

        def make(dtype: torch.dtype, compiled: bool) -> Callable[[], object]:
            backbone = EndoFM().to(device).eval()
            if compiled:
                compile_blocks(backbone)

            def run() -> None:
                with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    backbone(clip)

            return run

        return compare(make, clips * FORWARD_TFLOP, repeat, settings, device)

    def step(
        self, repeat: int = 3, settings: list[str] | None = None, device: str = "cpu", clips: int = 1
    ) -> dict[str, object]:
        """The whole pre-training step, ViT-B with ten views of each clip, against the matrix-multiply rate."""

        def make(dtype: torch.dtype, compiled: bool) -> Callable[[], None]:
            return make_step(dtype, compiled, device, clips)

        return compare(make, clips * STEP_TFLOP, repeat, settings, device)

    def memory(self) -> dict[str, float]:
        """Peak memory in GiB of the step with and without activation checkpointing, each in a process of its own."""
        benchmark = Path(__file__).parents[1] / "benchmark.py"
        peaks = {}
        for checkpointing in (False, True):
            command = [
                sys.executable,
                str(benchmark),
                "pretraining",
                "peak_of_step",
                f"--checkpointing={checkpointing}",
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[f"checkpointing_{checkpointing}".lower()] = float(output)
        return peaks

    def peak_of_step(self, checkpointing: bool) -> float:
        """Peak memory in GiB of this process after two steps."""
        step = make_step(checkpointing=checkpointing)
        step()
        step()
        return peak_memory()

    def reading(self, frames: int = 300, repeat: int = 9) -> dict[str, float]:
        """Reading the frames of all views, and making the views, against plain PyAV decoding of the same window."""
        plan = ViewPlan()
        load, augment = LoadClipd("image", plan), RandAugmentViews(plan)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            write_video(path, frames)
            window = round(plan.window * 30)

            def decode() -> None:
                with av.open(str(path)) as container:
                    for number, frame in enumerate(container.decode(video=0)):
                        frame.to_ndarray(format="rgb24", threads=1)
                        if number == window:
                            break

            def read() -> torch.Tensor:
                return load.set_random_state(seed=0)({"image": path})["image"]

            plain, reading = seconds_of(decode, repeat), seconds_of(read, repeat)
            clip = read()
            making = seconds_of(lambda: augment.set_random_state(seed=0)(clip), repeat)
            with open_clip(path) as reader:
                probing = seconds_of(reader.probe, repeat)
        return {
            "plain_decoding_seconds": plain,
            "reading_to_decoding": reading / plain,
            "views_to_decoding": making / plain,
            "probe_seconds": probing,
        }

    def startup(self, repeat: int = 3) -> dict[str, float]:
        """Seconds to import MONAI, the package, and to the end of a bundle's first (tiny) training step."""

        def run(*command: str) -> float:
            return seconds_of(lambda: subprocess.run([sys.executable, *command], check=True), repeat)

        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "clip.mp4", 60)
            step = [
                *("-m", "monai.bundle", "run"),
                *("--config_file", f"['{CONFIGS / 'train.json'}','{CONFIGS / 'tiny.json'}']"),
                *("--dataset_dir", folder, "--ckpt_dir", f"{folder}/models", "--output_dir", f"{folder}/eval"),
                *("--batch_size", "1", "--epochs", "1", "--num_workers", "0", "--resume", "True"),
                *("--train::trainer::train_handlers", "[]"),
            ]
            return {
                "import_monai_seconds": run("-c", "import monai"),
                "import_endofm_monai_seconds": run("-c", "import endofm_monai"),
                "first_step_seconds": run(*step),
            }


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
