# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from bundles import BundleUnderTest
from trial import TRIAL_TRAINING

TRAININGS = {
    name: BundleUnderTest(name, training={**settings, "epochs": 2}) for name, settings in TRIAL_TRAINING.items()
}


def check(folder) -> None:
    state = torch.load(folder / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 2  # 2 clips, 2 processes, batches of 1, 2 epochs
    assert len(state["random_states"]) == 2
    assert not any(key.startswith("module.") for key in state.get("network", state.get("student")))
    assert (folder / "models" / "model.pt").exists()


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_from_another_folder(name, trial_datalist, tmp_path):
    TRAININGS[name].train_in_two_processes(trial_datalist.parent, tmp_path, datalist=trial_datalist)
    check(tmp_path)


def test_torchrun_trains(trial_datalist, tmp_path):
    """In new processes, which know the short names of the package by nothing but `imports` of the config."""
    TRAININGS["endofm_polyp_segmentation"].train_by_torchrun(trial_datalist.parent, tmp_path)
    check(tmp_path)
