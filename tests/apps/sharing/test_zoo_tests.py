# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

from endofm_monai.apps.sharing import zoo_tests

BUNDLES = Path(__file__).parents[3] / "bundle"


@pytest.mark.parametrize("suffix", ["", "_dist"])
def test_artifact_comes_with_tests_that_pass_in_the_zoos_layout(shared, tmp_path, suffix):
    (tmp_path / "models").symlink_to(shared / "out")
    file = shared / "out" / "ci" / "unit_tests" / f"test_endofm_pretraining{suffix}.py"
    environment = {key: value for key, value in os.environ.items() if key != "BUNDLE_ROOT"}
    done = subprocess.run([sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Ran 1 test" in done.stderr


@pytest.mark.parametrize("name", ["endofm_polyp_classification", "endofm_polyp_detection", "endofm_polyp_segmentation"])
def test_the_other_bundles_train_evaluate_and_infer(name):
    case = type("Case", (zoo_tests.SingleBundleTest,), {"bundle_root": str(BUNDLES / name)})(
        "test_train_evaluate_infer"
    )
    result = unittest.TestResult()
    case.run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures
