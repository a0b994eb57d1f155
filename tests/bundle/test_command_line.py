# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys

from bundles import BundleUnderTest
from trial import TRIAL_TRAINING

NAME = "endofm_polyp_classification"
BUNDLE = BundleUnderTest(NAME, training=TRIAL_TRAINING[NAME])


def test_a_run_that_fails_in_its_engine_ends_with_the_cause(trial_datalist, tmp_path):
    """The weights are read when the evaluator has started, below several of MONAI's and ignite's layers."""
    settings = {**BUNDLE.training, "dataset_dir": trial_datalist.parent, "bundle_root": BUNDLE.folder}
    settings |= {"output_dir": tmp_path, "class_names": "polyp,normal", "weights": "no.pt"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE.config("train", "evaluate"))]
    command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no.pt: there is no such file of weights."
    assert "Traceback" not in done.stderr + done.stdout
    assert "terminating" not in done.stderr + done.stdout
