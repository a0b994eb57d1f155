# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["BundleUnderTest", "root_cause"]


class BundleUnderTest:
    """A bundle of the project by its name."""

    def __init__(self, name: str) -> None:
        self.folder = Path(__file__).parents[2] / "bundle" / name

    def config(self, *names: str) -> list[str]:
        """Paths of its configs."""
        return [str(self.folder / "configs" / f"{name}.json") for name in names]

    def workflow(self, kind: str, *names: str, **overrides: Any) -> ConfigWorkflow:
        """A workflow of its configs, initialized."""
        workflow = ConfigWorkflow(
            self.config(*names), workflow_type=kind, bundle_root=str(self.folder), logging_file=False, **overrides
        )
        workflow.initialize()
        return workflow

    def train_in_two_processes(self, folder: Path, dataset_dir: Path, **overrides: Any) -> None:
        """Train by ``torchrun`` from ``folder``, which gets ``models`` and ``eval``."""
        overrides |= {"batch_size": 1, "ckpt_dir": folder / "models", "output_dir": folder / "eval"}
        overrides.pop("device", None)  # an expression, which a shell would need quoted
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "monai.bundle", "run", "--config_file", str(self.config("train", "multi_gpu_train"))),
            *("--bundle_root", str(self.folder), "--dataset_dir", str(dataset_dir)),
            *(part for key, value in overrides.items() for part in (f"--{key}", str(value))),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


def root_cause(error: BaseException) -> BaseException:
    """What a config's run stumbled over; MONAI wraps it once for each level of the config."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
