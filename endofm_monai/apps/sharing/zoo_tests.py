# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar

import torch
from monai.bundle import ConfigWorkflow

from endofm_monai.apps.sharing.trial import TRIAL_INFERENCE, TRIAL_TRAINING, make_trial_clips

__all__ = ["DistributedBundleTest", "SingleBundleTest", "write_zoo_tests"]

TEST_FILE = """\
# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import sys
import unittest

BUNDLE = os.environ.get("BUNDLE_ROOT", os.path.join("models", "{name}"))
sys.path.insert(0, os.path.abspath(BUNDLE))

from endofm_monai.apps.sharing.zoo_tests import {case}  # noqa: E402


class Test{title}({case}):
    bundle_root = BUNDLE


del {case}  # which unittest would run as well

if __name__ == "__main__":
    unittest.main()
"""


def write_zoo_tests(name: str, folder: str | os.PathLike) -> list[Path]:
    """Write ``test_<name>.py`` and ``test_<name>_dist.py``, which the Model Zoo keeps in its ``ci/unit_tests``.

    They find the bundle in ``models/<name>`` below the present folder, as in the zoo, or where ``BUNDLE_ROOT`` says.

    Args:
        name: the bundle's name.
        folder: where the tests go.

    Returns:
        the two files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, case in (("", SingleBundleTest), ("_dist", DistributedBundleTest)):
        title = f"{name}{suffix}".title().replace("_", "")
        written.append(folder / f"test_{name}{suffix}.py")
        written[-1].write_text(TEST_FILE.format(name=name, case=case.__name__, title=title), encoding="utf-8")
    return written


class BundleTestCase(unittest.TestCase):
    """A bundle in ``bundle_root``, a folder of trial clips, and one for what is written."""

    bundle_root: ClassVar[str]

    def setUp(self) -> None:
        """Make the clips."""
        root = Path(self.bundle_root).resolve()
        self.name, self.configs = root.name, root / "configs"
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.common: dict[str, Any] = {
            "bundle_root": str(root),
            "dataset_dir": str(self.folder),
            "datalist": str(make_trial_clips(self.folder)),
            "output_dir": str(self.folder / "eval"),
        }

    def paths(self, *names: str) -> list[str]:
        """Paths of configs."""
        return [str(self.configs / f"{name}.json") for name in names]


class SingleBundleTest(BundleTestCase):
    """Trains, evaluates and infers, in one process."""

    def test_train_evaluate_infer(self) -> None:
        """The model of a training is evaluated and used."""
        model = self.folder / "models" / "model.pt"
        training = {**self.common, **TRIAL_TRAINING[self.name], "ckpt_dir": str(model.parent)}
        self.run_workflow("train", self.paths("train"), **training)
        state = torch.load(model, weights_only=True)
        assert all(bool(value.isfinite().all()) for value in state.values())
        self.run_workflow("train", self.paths("train", "evaluate"), **training, weights=str(model))
        self.run_workflow(
            "infer", self.paths("inference"), **self.common, **TRIAL_INFERENCE[self.name], weights=str(model)
        )
        assert any(path.is_file() for path in (self.folder / "eval").rglob("*"))

    def run_workflow(self, kind: str, configs: list[str], **overrides: Any) -> None:
        """Check a workflow's properties, and run it."""
        workflow = ConfigWorkflow(configs, workflow_type=kind, logging_file=False, **overrides)
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()


class DistributedBundleTest(BundleTestCase):
    """Trains in two processes, on two GPUs where there are, else on the CPU."""

    def test_train(self) -> None:
        """A training by ``torchrun`` gives a model without the wrapper's prefix."""
        overrides = {
            **self.common,
            **TRIAL_TRAINING[self.name],
            "batch_size": 1,
            "ckpt_dir": str(self.folder / "models"),
        }
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "monai.bundle", "run", "--config_file", str(self.paths("train", "multi_gpu_train"))),
            *(part for key, value in overrides.items() for part in (f"--{key}", str(value))),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.configs.parent), *sys.path])}
        if torch.cuda.device_count() == 1:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        state = torch.load(self.folder / "models" / "model.pt", weights_only=True)
        assert not [key for key in state if key.startswith("module.")]
