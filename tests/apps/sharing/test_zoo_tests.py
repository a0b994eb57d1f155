# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys
import unittest
import zipfile
from pathlib import Path

import numpy as np
import pytest

from endofm_monai.apps.sharing.zoo_tests import BundleTestCase, make_trial_clips, write_zoo_tests

BUNDLES = Path(__file__).parents[3] / "bundle"
NAME = "endofm_pretraining"
SCRIPT = """
import os, runpy, sys, unittest
import endofm_monai, monai.bundle
print(endofm_monai.__file__)
here = os.getcwd()
os.chdir("models/endofm_pretraining")
monai.bundle.run(config_file="configs/inference.json", dataset_dir=sys.argv[1], plot=False, num_workers=0)
os.chdir(here)
unittest.main(None, argv=["", "discover", sys.argv[2], "test_*.py"])
"""


def test_artifact_runs_on_its_own_and_its_tests_pass_in_the_zoos_layout(shared: Path, tmp_path: Path) -> None:
    """All in one process, but for the training in two: to start Python and MONAI takes most of the time."""
    with zipfile.ZipFile(shared / "out" / f"{NAME}.zip") as archive:
        archive.extractall(tmp_path / "models")
    root = tmp_path / "models" / NAME
    clips = make_trial_clips(tmp_path / "data").with_name("image")
    environment = {key: value for key, value in os.environ.items() if key != "BUNDLE_ROOT"}
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, clips, shared / "out" / "ci" / "unit_tests"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(str(root))
    assert "Ran 2 tests" in done.stderr
    with np.load(root / "eval" / "embeddings.npz") as embeddings:
        assert embeddings["embeddings"].shape == (1, 192)


@pytest.mark.parametrize("name", ["endofm_polyp_classification", "endofm_polyp_detection", "endofm_polyp_segmentation"])
def test_the_other_bundles_train_evaluate_and_infer(name: str) -> None:
    case = type("Case", (BundleTestCase,), {"bundle_root": str(BUNDLES / name)})("train_evaluate_infer")
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures


def test_tests_of_a_bundle_of_any_name_are_python(tmp_path: Path) -> None:
    write_zoo_tests("my colon.v2_segmentation", tmp_path)
    for path in sorted(tmp_path.iterdir()):
        compile(path.read_text(), path, "exec")
