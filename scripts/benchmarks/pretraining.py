# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The backbone, the pre-training step, the reading of clips, the start of a training, and whether one learns."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import torch
from benchmarks import measure
from benchmarks.launches import allocation, augmentation, launches

from endofm_monai.formats import write_video
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import weight_decay_groups
from endofm_monai.transforms import LoadClipd, RandAugmentViews, ViewPlan
from endofm_monai.utils import read_json

__all__ = ["allocation", "augmentation", "dropping", "forward", "launches", "learning", "reading", "startup", "step"]

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


def dropping(repeat: int = 3, share: float = 0.8) -> dict[str, float]:
    """Time and memory in GiB of the step when the student sees all tokens, and when a ``share`` is left out."""
    peaks = [allocation(1, token_drop=drop, amp=False) for drop in (0, share)]
    steps = [make_step(token_drop=drop) for drop in (0, share)]
    times: list[list[float]] = [[measure.seconds_of_call(step) for step in steps] for _ in range(repeat + 1)][1:]
    seconds = [median(column) for column in zip(*times, strict=True)]
    ratio = median(dropped / whole for whole, dropped in times)
    memory = {"gib": peaks[0], "gib_dropped": peaks[1]}
    return {"seconds": seconds[0], "seconds_dropped": seconds[1], "ratio": ratio, **memory}


def learning(dataset_dir: str = "datasets/sample/data", seeds: int = 3, **settings: Any) -> dict[str, Any]:
    """The quickstart's training, with several seeds: what it has learned at its end, and whether that is enough."""
    result: dict[str, Any] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            places = {"dataset_dir": dataset_dir, "datalist": f"{dataset_dir}/datalist.json", "output_dir": folder}
            given = {**places, "ckpt_dir": f"{folder}/models", "seed": seed, **settings}
            workflow = measure.open_bundle("endofm_pretraining", "train", "small", "tiny", "learning", **given)
            seconds = measure.seconds_of_call(workflow.run)
            record = read_json(Path(folder, "learning.json"), dict)
        last, before, after = record["epochs"][-1], record["before"], record["after"]
        ranks, spreads = ([row[name] for row in record["epochs"]] for name in ("effective_rank", "spread"))
        loss_share, rises = last["loss"] / record["uniform"], all(row[-1] > min(row) for row in (ranks, spreads))
        result[f"seed {seed}"] = {
            "minutes": seconds / 60,
            "loss_share": loss_share,
            "entropy_share": last["teacher_entropy"] / record["uniform"],
            "effective_rank": [min(ranks), ranks[-1]],
            "spread": [min(spreads), spreads[-1]],
            **{name: [before[name], after[name]] for name in before},
            "learns": loss_share < 0.9 and rises and after["retrieval"] > before["retrieval"],
        }
    return result


def reading(frames: int = 300, repeat: int = 9) -> dict[str, float]:
    """Reading the frames of all views, and making the views, against plain PyAV decoding of the same window."""
    plan = ViewPlan()
    load, augment = LoadClipd("image", plan), RandAugmentViews(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", measure.moving_texture(frames, (256, 320)), 30, crf=20)
        window = round(plan.window * 30)

        def decode() -> None:
            with av.open(str(path)) as container:
                for frame in islice(container.decode(video=0), window + 1):
                    frame.to_ndarray(format="rgb24", threads=1)

        def read() -> torch.Tensor:
            return load.set_random_state(seed=0)({"image": path})["image"]

        plain, seconds = measure.seconds_of(decode, repeat), measure.seconds_of(read, repeat)
        clip = read()
        making = measure.seconds_of(lambda: augment.set_random_state(seed=0)(clip), repeat)
    ratios = {"reading_to_decoding": seconds / plain, "views_to_decoding": making / plain}
    return {"plain_decoding_seconds": plain, **ratios}


def startup(repeat: int = 3) -> dict[str, float]:
    """Seconds to import MONAI, the package, and to the end of a bundle's first (tiny) training step."""

    def run(*command: str) -> float:
        return measure.seconds_of(lambda: subprocess.run([sys.executable, *command], check=True), repeat)

    configs = measure.BUNDLES / "endofm_pretraining" / "configs"
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "clip.mp4", measure.moving_texture(60, (256, 320)), 30, crf=20)
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
    tflop = measure.tflop_of(make(device=device, clips=clips))
    result: dict[str, Any] = {}
    for name in settings or SETTINGS:
        dtype, compiled = SETTINGS[name]
        result[name] = measure.next_to_limit(make(dtype, compiled, device, clips), tflop, repeat, dtype, device)
        result[name]["speed_to_first"] = next(iter(result.values()))["seconds"] / result[name]["seconds"]
    return {"tflop": tflop, **result}


def make_forward(
    dtype: torch.dtype = torch.float32, compiled: bool = False, device: str = "cpu", clips: int = 1
) -> Callable[[], None]:
    """A forward pass of the published size."""
    clip = torch.randn(clips, 3, 8, 224, 224, device=device)
    backbone = EndoFM().to(device).eval()
    if compiled:  # as fine-tuning is
        for block in backbone.blocks:
            block.compile()

    def run() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            backbone(clip)

    return run


def make_step(
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    device: str = "cpu",
    clips: int = 1,
    token_drop: float = 0,
) -> Callable[[], None]:
    """A whole pre-training step of the published size."""
    torch.manual_seed(0)
    with torch.device(device):
        network, loss = StudentTeacher(EndoFM(token_drop=token_drop)), SpatialTemporalMatchingLoss()
        views = [torch.randn(clips, 3, view.frames, view.size, view.size) for view in ViewPlan()]
    if compiled:
        network.compile(dynamic=False)
        loss.compile()
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student), lr=1e-5, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            logits = network(views)
        loss(*logits).backward()
        optimizer.step()
        network.update_teacher()

    return run


def autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    """Compute in bfloat16 where this is asked for."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == torch.bfloat16)
