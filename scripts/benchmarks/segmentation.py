# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp segmentation: speed next to its limit, memory of a training step, and how the sample data are learned."""

from functools import partial
from typing import Any

import torch
from benchmarks.measure import DATA, learn, next_to_limit, peak_in_a_process, peak_memory, tflop_of, training_step
from monai.losses import DiceCELoss

from endofm_monai.networks.nets import EndoFMSegmenter

__all__ = ["forward", "memory", "peak_of_step", "sample"]


@torch.inference_mode()
def forward(frames: int = 8, repeat: int = 3) -> dict[str, dict[str, float]]:
    """The forward pass at base size for frames of 224x224 against the matrix-multiply rate, for both decoders."""
    result = {}
    for decoder in ("transunet", "simple"):
        network = EndoFMSegmenter.from_preset("base", decoder=decoder).eval()
        clip = torch.randn(1, 3, frames, 224, 224)
        tflop = tflop_of(lambda: network(clip))  # noqa: B023
        result[decoder] = {"tflop": tflop, **next_to_limit(lambda: network(clip), tflop, repeat)}  # noqa: B023
    return result


def memory(frames: int = 25) -> dict[str, float]:
    """Peak memory in GiB of a training step on a clip, with and without checkpointing, each in its own process."""
    return {
        f"checkpointing_{on}".lower(): peak_in_a_process("segmentation", frames=frames, checkpointing=on)
        for on in (True, False)
    }


def peak_of_step(frames: int, checkpointing: bool) -> float:
    """Peak memory in GiB of this process after two training steps of the published network with AdamW."""
    network = EndoFMSegmenter.from_preset("base", activation_checkpointing=checkpointing)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True)
    clip = torch.randn(1, 3, frames, 224, 224)
    loss = partial(loss_function, target=(clip[:, :1] > 1).float())
    return peak_memory(training_step(network, network.parameters(), clip, loss))


def sample(data: str = DATA, **overrides: Any) -> dict[str, float]:
    """Train on the sample data with the ``tiny`` overlay; minutes, and Dice of their test videos."""
    minutes, report = learn("segmentation", "segmentation.json", ("train", "tiny"), {}, dataset_dir=data, **overrides)
    dice = {name: report["clean"][name]["dice"]["value"] for name in ("per_frame", "per_sequence", "pooled")}
    return {**minutes, **{f"{name}_dice": value for name, value in dice.items()}}
