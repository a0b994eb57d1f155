# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The networks of the checkout in float32 and in bfloat16: what a frame costs, and what the answers differ by."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from benchmarks.measure import BUNDLES, multiply_rate

from endofm_monai.data import ClipReader, open_clip
from endofm_monai.inferers import Answer, Predictor, load_predictor
from endofm_monai.inferers.bundle import TASKS
from endofm_monai.utils import as_device

__all__ = ["run"]


def run(
    video: str, tasks: Sequence[str] = TASKS, repeat: int = 3, threads: int = 1, device: str = "cpu"
) -> dict[str, Any]:
    """Milliseconds a frame of each network from the file to the answer, in either precision by turns.

    On a CPU it is processor time of all threads, as other work on the machine does not count in it. ``ratio`` is the
    median of those of the turns.
    """
    torch.set_num_threads(threads)
    rates = {str(kind)[6:]: multiply_rate(kind, device) for kind in (torch.float32, torch.bfloat16)}
    result: dict[str, Any] = {"multiply_tflops": rates}
    for task in tasks:
        predictor = load_predictor(BUNDLES / f"endofm_polyp_{task}", as_device(device))
        with open_clip(video) as reader:
            turns = [[_go_through(predictor, reader, amp) for amp in (False, True)] for _ in range(1 + repeat)][1:]
        float32, bfloat16 = zip(*[[1000 * seconds for seconds, _ in turn] for turn in turns], strict=True)
        result[task] = {
            "float32": round(median(float32), 1),
            "bfloat16": round(median(bfloat16), 1),
            "ratio": round(median(lower / full for full, lower in zip(float32, bfloat16, strict=True)), 3),
            "largest_difference": _difference(*(answers for _, answers in turns[0])),
        }
    return result


def _go_through(predictor: Predictor, reader: ClipReader, amp: bool) -> tuple[float, list[Answer]]:
    predictor.amp = amp
    clock = time.process_time if predictor.device.type == "cpu" else time.perf_counter
    start = clock()
    answers = [answer for _, answer in predictor(reader)]
    return (clock() - start) / len(answers), answers


def _difference(float32: list[Answer], bfloat16: list[Answer]) -> float:
    """The largest difference of a pixel's or class's probability, or of the best box's score."""
    name = next(name for name in ("probability", "probabilities", "label_scores") if name in float32[0])
    pairs = zip(float32, bfloat16, strict=True)
    count = 1 if name == "label_scores" else None
    return round(max(float((a[name][:count] - b[name][:count]).abs().max()) for a, b in pairs), 4)
