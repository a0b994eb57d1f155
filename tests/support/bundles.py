# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from processes import run_two_processes

__all__ = ["BundleUnderTest", "failing", "root_cause", "write_noise"]


class BundleUnderTest:
    """A bundle of the project by its name.

    Args:
        name: its name.
        network: settings with which its network is small, also in inference.
        training: settings with which its training and evaluation are short, besides.
    """

    def __init__(self, name: str, network: dict[str, Any] | None = None, training: dict[str, Any] | None = None):
        self.name = name
        self.folder = Path(__file__).parents[2] / "bundle" / name
        self.network = {"device": "cpu", **(network or {})}
        self.training = {**self.network, **(training or {})}

    def config(self, *names: str) -> list[str]:
        """Paths of its configs."""
        return [str(self.folder / "configs" / f"{name}.json") for name in names]

    def workflow(self, kind: str, *names: str, **overrides: Any) -> ConfigWorkflow:
        """A workflow of its configs, initialized."""
        overrides = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
        workflow = ConfigWorkflow(
            self.config(*names), workflow_type=kind, bundle_root=str(self.folder), logging_file=False, **overrides
        )
        workflow.initialize()
        return workflow

    def train(self, dataset_dir: Path, output: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
        """Train a small network; ``output`` gets ``models`` and ``eval``."""
        settings = {"dataset_dir": dataset_dir, "ckpt_dir": output / "models", "output_dir": output / "eval"}
        workflow = self.workflow("train", "train", *overlays, **{**settings, **self.training, **overrides})
        workflow.run()
        return workflow

    def evaluate(self, dataset_dir: Path, weights: Path, output: Path, *overlays: str, **overrides: Any) -> None:
        """Evaluate a small network."""
        settings = {"dataset_dir": dataset_dir, "weights": weights, "output_dir": output, **self.training}
        self.workflow("train", "train", "evaluate", *overlays, **{**settings, **overrides}).run()

    def infer(self, dataset_dir: Path, weights: Path, output: Path, *overlays: str, **overrides: Any) -> None:
        """Run the inference of a small network."""
        settings = {"dataset_dir": dataset_dir, "weights": weights, "output_dir": output, **self.network}
        self.workflow("infer", "inference", *overlays, **{**settings, **overrides}).run()

    def train_in_two_processes(self, dataset_dir: Path, output: Path, *overlays: str, **overrides: Any) -> None:
        """Train as ``torchrun`` does, in two processes that are forked from this one."""
        run_two_processes(self._train_one_rank, dataset_dir, output, overlays, overrides, initialize=False)

    def _train_one_rank(
        self, rank: int, dataset_dir: Path, output: Path, overlays: Sequence[str], overrides: dict[str, Any]
    ) -> None:
        os.chdir(output)
        settings = {"batch_size": 1, "device": "$idist.device()", **overrides}
        workflow = self.train(dataset_dir, output, *overlays, "multi_gpu_train", **settings)
        workflow.finalize()


@contextmanager
def failing(*messages: str, kind: type[BaseException] = Exception) -> Iterator[None]:
    """What runs inside has to stumble over an error of a ``kind`` that says all ``messages``."""
    with pytest.raises(RuntimeError) as caught:
        yield
    cause = root_cause(caught.value)
    assert isinstance(cause, kind)
    assert all(message in str(cause) for message in messages), cause


def root_cause(error: BaseException) -> BaseException:
    """What a config's run stumbled over; MONAI wraps it once for each level of the config."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def write_noise(path: Path, brightness: int, frames: int = 20) -> None:
    """Write a video of 48x40 pixels, 10 frames a second, of noise from ``brightness`` on."""
    random = np.random.default_rng(brightness)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 48, 40
        for _ in range(frames):
            pixels = random.integers(0, 100, (40, 48, 3)) + brightness
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8))))
        container.mux(stream.encode())
