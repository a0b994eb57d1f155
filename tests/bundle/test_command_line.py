# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from bundles import BundleUnderTest
from trial import TRIAL_TRAINING

NAME = "endofm_polyp_classification"
BUNDLE = BundleUnderTest(NAME, training=TRIAL_TRAINING[NAME])


def test_a_run_that_fails_in_its_engine_ends_with_the_cause(trial_datalist, tmp_path):
    """The weights are read when the evaluator has started, below several of MONAI's and ignite's layers."""
    done = BUNDLE.run_command(trial_datalist.parent, tmp_path, "evaluate", class_names="polyp,normal", weights="no.pt")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no.pt: there is no such file of weights."
    assert "Traceback" not in done.stderr + done.stdout
    assert "terminating" not in done.stderr + done.stdout
