# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp classification: how the sample data are learned, what a cache and adapters save, and the cost of inference."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks import measure
from ignite.engine import Engine, Events

from endofm_monai.networks.nets import EndoFMClassifier
from endofm_monai.optimizers import weight_decay_groups
from endofm_monai.utils import read_json

__all__ = ["adapters", "epoch", "inference", "learning", "peak_of_step"]

BUNDLE = "endofm_polyp_classification"


def learning(data: str = measure.DATA, seed: int = 0) -> dict[str, Any]:
    """Minutes that a probe of random weights takes to learn the sample data, and its scores on their test part."""
    configs = ("train", "linear_probe", "tiny")
    minutes, report = measure.learn("classification", "metrics.json", configs, {}, dataset_dir=data, seed=seed)
    return {**minutes, "test": {name: score["value"] for name, score in report["video"]["scores"].items()}}


def epoch(data: str = measure.DATA, preset: str = "small", frame_size: int = 112) -> dict[str, float]:
    """Median seconds of an epoch of full fine-tuning and of a linear probe on cached features, and their ratio."""
    settings: dict[str, Any] = {"dataset_dir": data, "preset": preset, "frame_size": frame_size, "sampling_rate": 8}
    full = _epoch_seconds("train", epochs=2, **settings)
    probe = _epoch_seconds("train", "linear_probe", epochs=20, **settings)
    return {"full_seconds": full, "probe_seconds": probe, "times_cheaper": full / probe}


def adapters(preset: str = "base", frames: int = 8, size: int = 224, repeat: int = 3) -> dict[str, Any]:
    """Steps of full fine-tuning and of adapters, in turn: parameters that learn, median seconds, peak memory in GiB."""
    settings: dict[str, Any] = {"preset": preset, "frames": frames, "size": size}
    modes = {mode: make_step(mode, **settings) for mode in ("full", "adapter")}
    times = [{mode: measure.seconds_of_call(step) for mode, (_, step) in modes.items()} for _ in range(repeat + 1)][1:]
    result: dict[str, Any] = {}
    for mode, (network, _) in modes.items():
        trained = sum(value.numel() for value in network.parameters() if value.requires_grad)
        result[mode] = {
            "trained": trained,
            "share": trained / sum(value.numel() for value in network.parameters()),
            "seconds": median(row[mode] for row in times),
            "gib": measure.peak_in_a_process("classification", mode=mode, **settings),
        }
    return {**result, "time_ratio": median(row["adapter"] / row["full"] for row in times)}


def peak_of_step(mode: str, preset: str, frames: int, size: int) -> float:
    """Peak memory in GiB of this process after two training steps of a mode."""
    return measure.peak_memory(make_step(mode, preset, frames, size)[1])


def make_step(mode: str, preset: str, frames: int, size: int) -> tuple[EndoFMClassifier, Callable[[], None]]:
    """A classifier, and a step of its training on a random clip."""
    network = EndoFMClassifier.from_preset(preset, mode=mode, adapters=int(mode == "adapter")).train()
    clip, loss = torch.randn(1, 3, frames, size, size), partial(F.cross_entropy, target=torch.tensor([1]))
    return network, measure.training_step(network, weight_decay_groups(network), clip, loss)


def inference(data: str = measure.DATA, preset: str = "base", frame_size: int = 224) -> dict[str, float]:
    """Inference over the test videos, from the first file to the last result, and its share outside the network."""
    settings: dict[str, Any] = {"preset": preset, "frame_size": frame_size, "sampling_rate": 8, "load_pretrain": False}
    lists = {"dataset_dir": data, "datalist": f"{data}/datalist.json"}
    with tempfile.TemporaryDirectory() as folder:
        workflow = measure.open_bundle(BUNDLE, "inference", kind="infer", output_dir=folder, **lists, **settings)
        seconds = measure.seconds_of_call(workflow.parser.get_parsed_content("evaluator").run)
        results = [read_json(path, dict) for path in Path(folder, "videos").rglob("*.json")]
    network = sum(result["network_seconds"] for result in results)
    return {"seconds": seconds, "network_seconds": network, "share_outside_network": 1 - network / seconds}


def _epoch_seconds(*configs: str, **settings: Any) -> float:
    event, seconds = Events.EPOCH_COMPLETED, list[float]()
    with tempfile.TemporaryDirectory() as folder:
        settings = {**settings, "ckpt_dir": folder, "output_dir": folder, "val_interval": 1000}
        trainer: Engine = measure.open_bundle(BUNDLE, *configs, **settings).parser.get_parsed_content("train::trainer")
        trainer.add_event_handler(event, lambda: seconds.append(trainer.state.times[event.name]))  # without validation
        trainer.run()
    return median(seconds[1:])  # the first one warms up
