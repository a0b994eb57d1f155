# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Kills training, inference, preparation, conversion and label saving at random moments, and starts them again.

Good is when all files that a killed run leaves under their final names are whole, and the run that is started again
ends with the same results, to the bit, as one that was never killed. What is not good is named in ``verdicts.json``.
"""

import gzip
import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import ensure_tuple
from PIL import Image
from safetensors.torch import load_file

from endofm_monai.data import open_clip
from endofm_monai.formats import write_video
from endofm_monai.networks.nets import EndoFMSegmenter
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset
from endofm_monai.utils import TEMPORARY_PREFIX, run_from_command_line, write_json
from endofm_monai.weights.__main__ import convert

sys.path.append(str(Path(__file__).parents[1] / "support"))
from bundles import BundleUnderTest

NETWORK = {"network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2, "num_workers": 0}
VIEWS = {"views::global_size": 32, "views::local_size": 16, "views::local_frames": [2, 4]}
TRAINING = {"resume": True, "epochs": 4, "warmup_epochs": 1, "batch_size": 2, "num_prototypes": 16}
PRETRAINING = BundleUnderTest("endofm_pretraining", NETWORK, {**VIEWS, **TRAINING})
SEGMENTATION = BundleUnderTest("endofm_polyp_segmentation", {**NETWORK, "frame_size": 32})


def make_inputs(folder: Path) -> None:
    """Six short videos, and weights for them."""
    random_state = np.random.default_rng(0)
    for number in range(6):
        frames = random_state.integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
        write_video(folder / "videos" / f"{number}.mp4", frames, fps=10)
    torch.manual_seed(0)
    network = EndoFMSegmenter.from_preset("tiny", embed_dim=16, depth=1, num_heads=2, num_classes=2)
    torch.save(network.state_dict(), folder / "segmenter.pt")


def train(inputs: Path, output: Path) -> None:
    """Pre-train for four epochs, or what is left of them."""
    PRETRAINING.train(inputs / "videos", output)


def infer(inputs: Path, output: Path) -> None:
    """Segment the videos, or those that are left."""
    SEGMENTATION.infer(inputs / "videos", inputs / "segmenter.pt", output)


def prepare(inputs: Path, output: Path) -> None:
    """Cut and encode the videos, or those that are left."""
    videos = [SourceVideo(path.stem, path) for path in sorted((inputs / "videos").iterdir())]
    dataset = SourceDataset(name="noise", licence="none", mode="encode", clip_seconds=1)
    prepare_dataset(dataset, videos, inputs / "videos", output, workers=1, stats=False)


def convert_weights(inputs: Path, output: Path) -> None:
    """Convert weights."""
    convert(inputs / "segmenter.pt", output / "segmenter.safetensors", head=True)


def save_labels(inputs: Path, output: Path) -> None:
    """Open MONAI Label's store and label five images in it."""
    from endofm_monai.apps.monai_label.lib.datastore import CheckedDatastore

    output.mkdir(exist_ok=True)
    for number in range(5):
        if not (output / f"image{number}.png").exists():
            Image.new("RGB", (32, 24), (number, 0, 0)).save(inputs / "image.png")
            shutil.copy(inputs / "image.png", inputs / "copy.png")
            os.replace(inputs / "copy.png", output / f"image{number}.png")
    store = CheckedDatastore(str(output))
    for number in range(5):
        Image.fromarray(np.eye(24, 32, dtype=np.uint8) * 255).save(inputs / "label.png")
        store.save_label(f"image{number}", str(inputs / "label.png"), "final", {})


@dataclass
class Act:
    """Something that is killed: what it does, and which of its files are its results."""

    run: Callable[[Path, Path], None]
    results: tuple[str, ...]


ACTS = {
    "training": Act(train, ("models/model.pt",)),
    "inference": Act(infer, ("**/*.png", "**/*.nii.gz")),
    "preparation": Act(prepare, ("**/*.mp4", "datalist.json")),
    "conversion": Act(convert_weights, ("*.safetensors",)),
    "labels": Act(save_labels, ("labels/**/*.png",)),
}
READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".safetensors": load_file,
    ".png": lambda path: Image.open(path).load(),
    ".mp4": lambda path: open_clip(path).probe(),
}


def start(act: Act, inputs: Path, output: Path, log: Path) -> Any:
    """Start it in a process of its own."""

    def work() -> None:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        warnings.simplefilter("ignore")
        act.run(inputs, output)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def fingerprint(act: Act, output: Path) -> dict[str, str]:
    """What the results are, by name: weights of torch by their values, volumes unpacked: archives hold the time."""
    found = {}
    for path in sorted({path for pattern in act.results for path in output.glob(pattern)}):
        digest = hashlib.sha256()
        if path.suffix == ".pt":
            for name, value in sorted(READERS[path.suffix](path).items()):
                digest.update(name.encode() + value.numpy().tobytes())
        else:
            content = path.read_bytes()
            digest.update(gzip.decompress(content) if path.suffix == ".gz" else content)
        found[str(path.relative_to(output))] = digest.hexdigest()
    return found


def half_written(output: Path) -> list[str]:
    """Files under their final names that cannot be read."""
    broken = []
    for path in output.rglob("*"):
        if path.suffix in READERS and TEMPORARY_PREFIX not in str(path):
            try:
                READERS[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.name}: {error}")
    return broken


def kill(kills: int = 100, seed: int = 0, acts: Sequence[str] | None = None, output: str = "outputs/kill") -> str:
    """Kill each act in turn.

    Args:
        kills: number of kills in all.
        seed: of the moments.
        acts: names of the acts; all by default.
        output: folder for ``verdicts.json`` and the log of what was started.

    Returns:
        the counts by act, as text; what is not good ends the command with an error.
    """
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    chosen, draw, report = ensure_tuple(acts or ACTS), random.Random(seed), Path(output)
    report.mkdir(parents=True, exist_ok=True)
    counts, bad = dict.fromkeys(chosen, 0), []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs")
        make_inputs(inputs)
        whole: dict[str, tuple[float, dict[str, str]]] = {}
        for name in chosen:
            begin = time.monotonic()
            process = start(ACTS[name], inputs, Path(folder, name), report / "log.txt")
            process.join()
            whole[name] = time.monotonic() - begin, fingerprint(ACTS[name], Path(folder, name))
            if process.exitcode or not whole[name][1]:
                raise SystemExit(f"{name} fails without a kill: see {report / 'log.txt'}")
        for number in range(kills):
            name = chosen[number % len(chosen)]
            act, place, (duration, expected) = ACTS[name], Path(folder, f"{name}_{number}"), whole[name]
            process = start(act, inputs, place, report / "log.txt")
            process.join(draw.uniform(0, duration))
            process.kill()
            process.join()
            problems = half_written(place)
            again = start(act, inputs, place, report / "log.txt")
            again.join()
            if again.exitcode:
                problems.append(f"started again, it ended with {again.exitcode}")
            if fingerprint(act, place) != expected:
                problems.append("the results are others")
            counts[name] += 1
            bad += [{"kill": number, "act": name, "problem": problem} for problem in problems]
            shutil.rmtree(place)
    write_json(report / "verdicts.json", {"seed": seed, "kills": counts, "bad": bad})
    text = f"{json.dumps(counts)}\n{sum(counts.values())} kills, {len(bad)} bad; see {report / 'verdicts.json'}"
    if bad:
        raise SystemExit(text)
    return text


if __name__ == "__main__":
    run_from_command_line(kill)
