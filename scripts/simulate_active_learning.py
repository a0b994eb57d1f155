# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""How many annotated frames does a segmentation need, chosen at random or by active learning? See docs."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from endofm_monai.apps.active_learning.selection import clip_windows
from endofm_monai.apps.active_learning.simulation import STRATEGIES, Frames, simulate
from endofm_monai.apps.active_learning.token_cache import cached_tokens
from endofm_monai.data import load_datalist
from endofm_monai.data.masks import read_mask
from endofm_monai.networks.nets import EndoFM
from endofm_monai.preparation.prepare import run_from_command_line
from endofm_monai.utils import atomic_path
from endofm_monai.visualize.figure import new_figure, save_figure
from endofm_monai.weights import initialize_backbone

__all__ = ["simulate_active_learning"]


def simulate_active_learning(
    dataset_dir: str,
    weights: str | None,
    output: str = "active_learning",
    datalist: str | None = None,
    preset: str = "small",
    patch_size: int = 14,
    size: int = 168,
    window: int = 8,
    seeds: int = 3,
    first: int = 8,
    step: int = 8,
    last: int = 40,
    iterations: int = 150,
) -> None:
    """Write ``active_learning.csv`` (Dice by strategy, seed and number of annotated frames) and a plot of it.

    Args:
        dataset_dir: folder with frames and masks, see ``datasets/cvc_clinicdb``.
        weights: pre-trained weights of the backbone, see ``endofm_monai.weights.initialize_backbone``; None: random.
        output: folder to write to; the tokens of all frames are kept there too.
        datalist: JSON file with ``image`` and ``mask`` (lists of files) in ``training`` and ``validation``; by default
            ``datalist.json`` in the dataset's folder.
        preset: size of the backbone.
        patch_size: pixels of a patch.
        size: height and width that frames are resized to.
        window: frames of a window, of which one at most is annotated.
        seeds: number of repetitions.
        first: frames to begin with.
        step: frames to annotate at a time.
        last: frames to stop at.
        iterations: training iterations of each decoder.
    """
    folder = Path(output)
    backbone = EndoFM.from_preset(preset, img_size=size, patch_size=patch_size)
    initialize_backbone(backbone, weights)

    def frames(section: str) -> Frames:
        items = load_datalist(dataset_dir, datalist or Path(dataset_dir, "datalist.json"), section, label_key="mask")
        tokens, class_tokens = cached_tokens(items, backbone, size, folder / f"{section}.safetensors")
        masks = [torch.from_numpy(read_mask(Path(mask)).astype(np.uint8)) for item in items for mask in item["mask"]]
        windows = clip_windows({item["image"][0]: len(item["image"]) for item in items}, window)
        return Frames(tokens, class_tokens.float(), masks, windows)

    pool, validation = frames("training"), frames("validation")
    print(
        f"{len(pool.masks)} frames to choose from in {len(set(pool.windows))} windows, {len(validation.masks)} to test"
    )
    rows: list[tuple[str, int, int, float]] = []
    for seed in range(seeds):
        for strategy in STRATEGIES:
            for count, dice in simulate(pool, validation, strategy, seed, first, step, last, iterations):
                rows.append((strategy, seed, count, dice))
                print(f"{strategy:12} seed {seed} {count:4} frames: Dice {dice:.3f}", flush=True)
        with atomic_path(folder / "active_learning.csv") as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([("strategy", "seed", "frames", "dice"), *rows])
        plot(rows, folder / "active_learning.png")


def plot(rows: list[tuple[str, int, int, float]], path: Path) -> None:
    """Draw the mean over the seeds, and the range of them, by strategy."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for strategy in STRATEGIES:
        values: dict[int, list[float]] = defaultdict(list)
        for name, _, count, dice in rows:
            if name == strategy:
                values[count].append(dice)
        (line,) = axes.plot(list(values), [np.mean(dices) for dices in values.values()], marker="o", label=strategy)
        low, high = ([bound(dices) for dices in values.values()] for bound in (min, max))
        axes.fill_between(list(values), low, high, alpha=0.12, color=line.get_color())
    axes.set(xlabel="annotated frames", ylabel="Dice on the validation sequences")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    run_from_command_line(simulate_active_learning)
