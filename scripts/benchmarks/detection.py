# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp detection: what a frame costs in streaming, and how well the sample data are learned."""

from statistics import median
from typing import Any

import torch
from benchmarks.measure import DATA, learn, seconds_of, seconds_of_call

from endofm_monai.data import SupportSampler, load_datalist, open_clip
from endofm_monai.inferers import DetectionPredictor
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.transforms import FitClip

__all__ = ["sample", "streaming"]


@torch.no_grad()
def streaming(
    data: str = DATA,
    preset: str = "small",
    size: tuple[int, int] = (256, 320),
    mode: str = "offline",
    repeat: int = 10,
    device: str = "cpu",
) -> dict[str, Any]:
    """Milliseconds a frame in streaming with 10 supports, in all and by stage, and the bytes that are kept.

    ``encoding_supports_again`` is what a frame costs when its supports are encoded for it, measured in turn with the
    streaming; ``times_cheaper`` is the median ratio of the two.
    """
    network = EndoFMDetector.from_preset(preset, num_classes=1).to(device).eval()
    supports = SupportSampler(mode=mode)
    predictor = DetectionPredictor(network, FitClip(size), supports=supports)
    with open_clip(load_datalist(data, f"{data}/datalist.json", "test")[0]["image"]) as reader:
        count = reader.probe().frames
        frames = reader.read(range(count))
        decoding = seconds_of(lambda: reader.read(range(count)), 3) / count

    def prepare(first: int, stop: int) -> torch.Tensor:
        return predictor.normalize(predictor.fit(frames[:, first:stop].to(device))).unsqueeze(0)

    predictor.push(frames[:, :20])  # until the window is full
    passed, again = [], []
    for index in range(20, 20 + repeat):
        passed.append(seconds_of_call(lambda: predictor.push(frames[:, index : index + 1])))  # noqa: B023
        again.append(seconds_of_call(lambda: predictor.select(network(prepare(index - 10, index + 1)))))  # noqa: B023

    clip = prepare(0, 11)
    levels, pred = network.encode(clip), network(clip)
    polyp = {"box": torch.tensor([[20.0, 20, 60, 60]]), "label": torch.ones(1), "label_scores": torch.ones(1)}
    polyp = {name: value.to(device) for name, value in polyp.items()}
    close_up = DetectionPredictor(network, FitClip(size), close_up=0.5).close_up
    stages = {
        "decode": decoding,
        "resize": seconds_of(lambda: prepare(0, 1), repeat),
        "encode": seconds_of(lambda: network.encode(clip[:, :, :1]), repeat),
        "head": seconds_of(lambda: network.head.refine(levels), repeat),
        "post_processing": seconds_of(lambda: predictor.select(pred), repeat),
        "close_up_of_one_polyp": seconds_of(lambda: close_up(frames[:, :1].to(device), polyp), repeat),
    }
    bytes_a_frame = sum(part.nbytes for level in levels for part in level) // clip.shape[2]
    return {
        "milliseconds": {name: round(1000 * seconds, 2) for name, seconds in stages.items()},
        "streaming": round(1000 * median(passed), 1),
        "encoding_supports_again": round(1000 * median(again), 1),
        "times_cheaper": round(median(a / s for a, s in zip(again, passed, strict=True)), 2),
        "bytes_a_frame": bytes_a_frame,
        "bytes_kept": bytes_a_frame * supports.window * (2 if mode == "offline" else 1),
    }


def sample(data: str = DATA, **overrides: Any) -> dict[str, Any]:
    """Train on the sample data with the ``tiny`` overlay; minutes, and scores on their test videos."""
    judging = {"formats": [], "resamples": 0}
    minutes, report = learn("detection", "detection.json", ("train", "tiny"), judging, dataset_dir=data, **overrides)
    return {**minutes, **{name: report["scores"][name] for name in ("ap50", "ap", "box_f1")}}
