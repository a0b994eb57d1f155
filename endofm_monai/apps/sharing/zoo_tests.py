# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import re
import subprocess
import sys
import tempfile
import unittest
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from endofm_monai.utils import PathLike, read_json, write_json

NETWORK = {"network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2}
TRAINING = {**NETWORK, "epochs": 1, "warmup_epochs": 0, "val_interval": 1, "batch_size": 2, "num_workers": 0}

TEST_FILE = """\
# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import sys
import unittest

BUNDLE = os.environ.get("BUNDLE_ROOT", os.path.join("models", "{name}"))
sys.path.insert(0, os.path.abspath(BUNDLE))

from endofm_monai.apps.sharing import zoo_tests  # noqa: E402


class Test{title}(zoo_tests.BundleTestCase):
    bundle_root = BUNDLE
    test = zoo_tests.BundleTestCase.{method}


if __name__ == "__main__":
    unittest.main()
"""


def write_zoo_tests(name: str, folder: PathLike) -> None:
    """Write ``test_<name>.py`` and ``test_<name>_dist.py``, which the Model Zoo keeps in its ``ci/unit_tests``.

    They find the bundle in ``models/<name>`` below the present folder, as in the zoo, or where ``BUNDLE_ROOT`` says.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for suffix, method in (("", "train_evaluate_infer"), ("_dist", "train_in_two_processes")):
        title = re.sub(r"\W|_", "", f"{name}{suffix}".title())  # a folder may be called anything, a class may not
        content = TEST_FILE.format(name=name, title=title, method=method)
        Path(folder, f"test_{name}{suffix}.py").write_text(content, encoding="utf-8")


def make_trial_clips(folder: PathLike) -> Path:
    """Write a datalist of dark clips, of which every second shows a bright square, with the labels of all tasks."""
    random, path = np.random.default_rng(0), Path(folder, "datalist.json")
    datalist: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    for (section, items), shown in product(datalist.items(), (0, 1)):
        item: dict[str, Any] = {"image": [], "mask": [], "box": [], "box_label": [[1] * shown] * 4, "label": shown}
        for frame in range(4):
            x1, y1, x2, y2 = box = [10 + 2 * frame, 12, 32 + 2 * frame, 30]
            mask = np.zeros((48, 64), np.uint8)
            mask[y1:y2, x1:x2] = 255 * shown
            image = random.integers(0, 60, (48, 64, 3)) + 150 * (mask[..., None] > 0)
            for key, pixels in (("image", image.astype(np.uint8)), ("mask", mask)):
                item[key].append(f"{key}/{section}_{shown}_{frame}.png")
                path.with_name(key).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path.with_name(key) / f"{section}_{shown}_{frame}.png")
            item["box"].append([box] * shown)
        items.append(item)
    write_json(path, datalist)
    return path


class BundleTestCase(unittest.TestCase):
    """Runs the bundle in ``bundle_root`` with its settings for trying and a smaller network, on trial clips."""

    bundle_root: ClassVar[str]

    def setUp(self) -> None:
        """Make the clips."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root, self.folder = Path(self.bundle_root).resolve(), Path(folder.name)
        self.model = self.folder / "models" / "model.pt"
        self.data = {"dataset_dir": folder.name, "datalist": str(make_trial_clips(folder.name))}
        self.data |= {"bundle_root": str(self.root), "output_dir": str(self.folder / "eval")}
        known = read_json(self._configs("train")[0], dict)
        settings = {key: value for key, value in TRAINING.items() if key.partition("::")[0] in known}
        self.training: dict[str, Any] = {**self.data, **settings, "ckpt_dir": str(self.model.parent)}

    def train_evaluate_infer(self) -> None:
        """The model of a training is evaluated and used, in one process."""
        self._run("train", "train", "tiny", **self.training)
        assert all(bool(value.isfinite().all()) for value in torch.load(self.model, weights_only=True).values())
        self._run("train", "train", "tiny", "evaluate", **self.training, weights=str(self.model))
        self._run("infer", "inference", "tiny_inference", **self.data, **NETWORK, weights=str(self.model))
        assert any(path.is_file() for path in (self.folder / "eval").rglob("*"))

    def train_in_two_processes(self) -> None:
        """A training by ``torchrun``, on two GPUs where there are, gives a model without the wrapper's prefix."""
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "monai.bundle", "run", "--config_file", str(self._configs("train", "tiny", "multi_gpu_train"))),
            *(f"--{key}={value}" for key, value in {**self.training, "batch_size": 1}.items()),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.root), *sys.path])}
        if torch.cuda.device_count() == 1:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert not [key for key in torch.load(self.model, weights_only=True) if key.startswith("module.")]
        assert len(torch.load(self.model.with_name("checkpoint.pt"), weights_only=True)["random_states"]) == 2

    def _run(self, kind: str, *configs: str, **overrides: Any) -> None:
        workflow = ConfigWorkflow(self._configs(*configs), workflow_type=kind, logging_file=False, **overrides)
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()

    def _configs(self, *names: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in names]
