# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The backbone, the pre-training step, the reading of clips and the start of a training."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import torch
from benchmarks.measure import (
    BUNDLES,
    moving_texture,
    next_to_limit,
    peak_memory,
    peaks_of_steps,
    seconds_of,
    tflop_of,
    write_video,
)

from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import weight_decay_groups
from endofm_monai.transforms import LoadClipd, RandAugmentViews, ViewPlan

__all__ = ["forward", "memory", "peak_of_step", "reading", "startup", "step"]

SETTINGS = {
    "fp32": (torch.float32, False),
    "fp32_compiled": (torch.float32, True),
    "bf16": (torch.bfloat16, False),
    "bf16_compiled": (torch.bfloat16, True),
}


def forward(repeat: int = 5, settings: list[str] | None = None, device: str = "cpu", clips: int = 1) -> dict[str, Any]:
    """The ViT-B forward pass for clips of 8 frames of 224x224 against the matrix-multiply rate."""
    return compare(make_forward, repeat, settings, device, clips)


def step(repeat: int = 3, settings: list[str] | None = None, device: str = "cpu", clips: int = 1) -> dict[str, Any]:
    """The whole pre-training step, ViT-B with ten views of each clip, against the matrix-multiply rate."""
    return compare(make_step, repeat, settings, device, clips)


def memory() -> dict[str, float]:
    """Peak memory in GiB of the step with and without activation checkpointing, each in a process of its own."""
    return peaks_of_steps("pretraining")


def peak_of_step(checkpointing: bool) -> float:
    """Peak memory in GiB of this process after two steps."""
    run = make_step(checkpointing=checkpointing)
    run()
    run()
    return peak_memory()


def reading(frames: int = 300, repeat: int = 9) -> dict[str, float]:
    """Reading the frames of all views, and making the views, against plain PyAV decoding of the same window."""
    plan = ViewPlan()
    load, augment = LoadClipd("image", plan), RandAugmentViews(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", moving_texture(frames, (256, 320)))
        window = round(plan.window * 30)

        def decode() -> None:
            with av.open(str(path)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    frame.to_ndarray(format="rgb24", threads=1)
                    if number == window:
                        break

        def read() -> torch.Tensor:
            return load.set_random_state(seed=0)({"image": path})["image"]

        plain, seconds = seconds_of(decode, repeat), seconds_of(read, repeat)
        clip = read()
        making = seconds_of(lambda: augment.set_random_state(seed=0)(clip), repeat)
    ratios = {"reading_to_decoding": seconds / plain, "views_to_decoding": making / plain}
    return {"plain_decoding_seconds": plain, **ratios}


def startup(repeat: int = 3) -> dict[str, float]:
    """Seconds to import MONAI, the package, and to the end of a bundle's first (tiny) training step."""

    def run(*command: str) -> float:
        return seconds_of(lambda: subprocess.run([sys.executable, *command], check=True), repeat)

    configs = BUNDLES / "endofm_pretraining" / "configs"
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "clip.mp4", moving_texture(60, (256, 320)))
        first_step = [
            *("-m", "monai.bundle", "run"),
            *("--config_file", f"['{configs / 'train.json'}','{configs / 'tiny.json'}']"),
            *("--dataset_dir", folder, "--ckpt_dir", f"{folder}/models", "--output_dir", f"{folder}/eval"),
            *("--batch_size", "1", "--epochs", "1", "--num_workers", "0", "--resume", "True"),
            *("--train::trainer::train_handlers", "[]"),
        ]
        return {
            "import_monai_seconds": run("-c", "import monai"),
            "import_endofm_monai_seconds": run("-c", "import endofm_monai"),
            "first_step_seconds": run(*first_step),
        }


def compare(make: Callable, repeat: int, settings: list[str] | None, device: str, clips: int) -> dict[str, Any]:
    """Each setting's time next to its limit, and next to the first setting."""
    tflop = tflop_of(make(device=device, clips=clips))
    result: dict[str, Any] = {}
    for name in settings or list(SETTINGS):
        dtype, compiled = SETTINGS[name]
        result[name] = next_to_limit(make(dtype, compiled, device, clips), tflop, repeat, dtype, device)
        result[name]["speed_to_first"] = next(iter(result.values()))["seconds"] / result[name]["seconds"]
    return {"tflop": tflop, **result}


def make_forward(
    dtype: torch.dtype = torch.float32, compiled: bool = False, device: str = "cpu", clips: int = 1
) -> Callable[[], None]:
    """A forward pass of the published size."""
    clip = torch.randn(clips, 3, 8, 224, 224, device=device)
    backbone = EndoFM().to(device).eval()
    if compiled:
        compile_blocks(backbone)

    def run() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            backbone(clip)

    return run


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

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            student, teacher = network(views)
        loss(student, teacher).backward()
        optimizer.step()
        network.update_teacher()

    return run


def autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    """Compute in bfloat16 where this is asked for."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=dtype == torch.bfloat16)


def compile_blocks(network: torch.nn.Module) -> None:
    """Compile the transformer blocks, as the trainer's ``compile`` does."""
    for name, module in network.named_modules():
        if name.rsplit(".", 2)[-2:-1] == ["blocks"]:
            module.compile()
