# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from PIL import Image
from torch import nn

from endofm_monai.data import ClipDataset, ClipReader, collate_clips
from endofm_monai.engines import VideoEvaluator

__all__ = ["evaluate_videos", "write_frames"]


class MadePredictor:
    """Answers for each frame by a function of the frame and its number in the video."""

    def __init__(self, answer: Callable[[torch.Tensor, int], dict[str, torch.Tensor]]) -> None:
        self.answer = answer

    def try_out(self) -> None:
        """It answers for frames of any size."""

    def pieces(self, reader: ClipReader) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        for index in range(reader.probe().frames):
            frame = reader.read([index])[:, 0]
            yield frame, self.answer(frame, index)


def evaluate_videos(
    items: Sequence[dict[str, Any]],
    predictor: Any,
    *handlers: Any,
    metric: Any = None,
    network: nn.Module | None = None,
    places: Sequence[int] | None = None,
) -> VideoEvaluator:
    """A ``VideoEvaluator`` after its run over items (or those at ``places``) with the answers of a function."""
    evaluator = VideoEvaluator(
        torch.device("cpu"),
        DataLoader(ClipDataset(items, lambda item: item), sampler=places, collate_fn=collate_clips),
        nn.Linear(2, 2) if network is None else network,
        predictor if hasattr(predictor, "pieces") else MadePredictor(predictor),
        key_val_metric=None if metric is None else {"score": metric},
        val_handlers=list(handlers),
    )
    evaluator.run()
    return evaluator


def write_frames(folder: Path, frames: np.ndarray | Sequence[np.ndarray], prefix: str = "f") -> list[str]:
    """Write frames or masks as ``<folder>/<prefix>0.png`` and so on; gives the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{prefix}{index}.png") for index in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    return paths
